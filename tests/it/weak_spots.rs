//! The weak spots of concurrency and acknowledgement: stories that a dedup proxy gets wrong first, told to the real
//! pipeline before an upstream whose answers are let go one by one.
//!
//! | weak spot | held by |
//! |---|---|
//! | the owner's stale marker overtakes a late sample | `markers::an_owners_marker_that_overtakes_the_standbys_late_sample_ends_nothing`, `a_standby_that_is_later_than_that_brings_the_series_back`, `while_no_interval_is_known_any_sign_of_life_counts`, `a_marker_that_comes_after_the_takeover_ends_nothing` |
//! | a takeover meets the owner's flight | `flights::a_takeover_waits_for_the_owners_flight`, `an_owner_that_lands_in_time_is_not_taken_over`, `a_takeover_that_waits_too_long_is_answered_503_and_leaves_nothing` |
//! | two chained flights fail | `rollback::two_chained_flights_that_fail_leave_a_series_as_it_was`, `a_whole_retry_of_both_failed_flights_goes_through`, `what_two_failed_flights_created_is_forgotten_with_its_target` |
//! | duplicates lean on a flight | `leaning::many_that_lean_are_answered_as_their_flight_is`, `what_leaned_on_a_failed_flight_comes_again_and_counts`, `a_leaner_with_a_flight_of_its_own_is_answered_by_both`, `a_leaner_whose_own_flight_has_landed_still_waits`, `a_leaner_on_two_flights_needs_both`, `what_leaned_on_a_flight_that_landed_is_a_sign_of_life` |
//! | a flight fails after a later one landed | impossible: `flights::a_later_flight_of_a_series_is_not_sent_before_the_first_has_ended`, `a_marker_waits_for_the_sample_before_it` |
//! | a rollback after somebody went on | `rollback::a_target_goes_back_although_…` (two), `a_failed_takeover_does_not_undo_a_fence_raised_meanwhile`, `a_target_that_changed_hands_twice_in_a_failed_flight_goes_back_to_the_first`, `what_another_shard_has_shown_of_a_target_outlives_a_failed_flight`, `a_fence_survives_the_503_of_its_request_and_the_retry_changes_nothing` |
//! | a batch comes again while it is in the air | `flights::a_batch_that_comes_again_while_it_is_in_the_air_goes_out_once`, `a_batch_that_overlaps_one_in_the_air_sends_its_own_part_only`, `a_conflict_with_ones_own_lost_answer_is_benign`, `a_copy_of_a_flight_without_an_answer_is_told_to_come_again` |
//! | two standbys take over at once | `takeovers::of_two_standbys_that_take_over_at_once_one_wins`, `two_standbys_that_claim_in_opposite_order_do_not_block_each_other` (threads) |
//! | a series twice, or two replicas, in one request | all of `one_request`; what a flight that gave way had held: `what_was_held_in_a_flight_that_gave_way_is_held_again`, `…_that_was_split_…` |
//! | exemplars after a change of owner | all of `exemplars` |
//! | `up` and stale markers, of one or both, in any order | `markers::a_series_that_ends_for_both_is_ended_once`, `a_series_that_ends_for_one_lives_in_the_other`, `a_third_replica_keeps_a_series_alive_that_two_have_lost`, `a_scrape_that_fails_for_…` (two), `a_standbys_failure_fills_no_gap`, `a_target_that_both_lose_is_told_once` |
//! | senders catch up after an outage | all of `catching_up` |
//! | the table is full, forgets, grows | all of `bounds` (the last two with threads) |
//! | a sender hangs up | all of `hang_up`; that of the receiving room alone: `receive::a_sender_that_hangs_up_cancels_nothing` |
//! | 413 | `leaning::of_a_split_batch_only_what_is_too_big_by_itself_is_refused`, `of_a_split_batch_the_half_that_failed_comes_again`, `of_a_split_batch_no_half_goes_after_one_that_failed`, `who_leans_on_a_split_flight_comes_again_and_who_waits_goes_on`, `one_request::a_conflict_in_one_half_rejects_that_half_only` |
//! | a target stays together | `takeovers::the_buckets_of_a_histogram_change_hands_together`, `a_scrape_that_was_cut_by_death_is_the_last_that_is_not_whole`, `series_born_and_gone_meanwhile_follow_within_a_scrape`, `another_target_of_the_same_group_stays` |

mod bounds;
mod catching_up;
mod exemplars;
mod flights;
mod hang_up;
mod leaning;
mod markers;
mod one_request;
mod rollback;
mod story;
mod takeovers;
