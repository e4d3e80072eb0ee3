//! Several keepers whose database is away, comes back, or has forgotten: who serves a group meanwhile, and who has it then.

use super::keeper::{One, beats, tables};
use super::rules::{group, peer};
use promdedup::placement::store::{EXPIRY, Gift, HEARTBEAT_EVERY, Store};
use promdedup::placement::{Placement, Whose};
use promdedup::series::GroupKey;
use promdedup::stand_in::coordination::Reach;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn without_the_database_placement_stays_and_what_is_unknown_is_served_here() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop((a.mine(1).await, b.mine(2).await));
    assert_eq!(a.theirs(2).await, peer("b"));
    for one in [&a, &b] {
        one.store.set_reach(Reach::Silent);
    }
    let asked = Instant::now();
    drop(a.mine(3).await);
    assert!(asked.elapsed() <= Duration::from_secs(3), "{:?}", asked.elapsed());
    beats(30).await;
    assert!(a.is_mine(1) && a.is_mine(3));
    assert!(matches!(a.known(2), Some(Whose::Theirs(_))), "it stays as it is");
    let asked = Instant::now();
    drop(b.mine(3).await);
    assert!(asked.elapsed() < Duration::from_millis(10), "it is known by now that nobody can be asked");
    assert_eq!(a.metric("promdedup_placement_database_up"), 0);
    for one in [&a, &b] {
        one.store.set_reach(Reach::Well);
    }
    beats(3).await;
    let mine = [a.is_mine(3), b.is_mine(3)];
    assert!(mine == [true, false] || mine == [false, true], "one has it now: {mine:?}");
    let (loser, winner) = if mine[0] { (&b, &a) } else { (&a, &b) };
    assert_eq!(loser.theirs(3).await, winner.keeper.me().clone());
    assert_eq!(loser.left(), [GroupKey(3)], "its memory goes");
    assert_eq!(loser.metric("promdedup_placement_lost_total"), 1);
    assert!(a.is_mine(1) && b.is_mine(2), "nobody else has taken these");
    assert_eq!(a.metric("promdedup_placement_database_up"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_reached_is_replaced_without_the_database() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(b.mine(2).await);
    assert_eq!(a.theirs(2).await, peer("b"));
    a.store.set_reach(Reach::Refused);
    beats(2).await;
    for reached in [false, false, true, false, false] {
        a.keeper.hopped(&peer("b"), reached);
        assert!(!a.is_mine(2), "never three in a row");
    }
    a.keeper.hopped(&peer("b"), false);
    assert!(a.is_mine(2));
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert_eq!(a.theirs(2).await, peer("b"), "it lived all the time, and has it still");
    assert_eq!(a.left(), [GroupKey(2)]);
}

/// A lock that took long, say. Nothing else is wrong with the database, which says that the peer lives.
#[tokio::test(start_paused = true)]
async fn one_statement_that_fails_makes_no_database_that_is_away() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop((b.mine(1).await, b.mine(2).await));
    assert_eq!(a.theirs(1).await, peer("b"));
    a.store.set_reach(Reach::Silent);
    let asking = tokio::spawn({
        let keeper = Arc::clone(&a.keeper);
        async move { keeper.ask(&group(3)).await }
    });
    tokio::task::yield_now().await;
    sleep(Duration::from_millis(1)).await;
    a.store.set_reach(Reach::Well);
    assert!(matches!(asking.await.unwrap(), Whose::Mine(_)), "nobody could be asked about that one");
    assert_eq!(a.metric("promdedup_placement_statement_errors_total"), 1);
    assert_eq!(a.metric("promdedup_placement_database_up"), 1);
    for _ in 0..5 {
        a.keeper.hopped(&peer("b"), false);
    }
    assert!(!a.is_mine(1), "its heartbeat would have expired if it were gone");
    assert_eq!(a.theirs(2).await, peer("b"), "the next one is asked about as ever");
    beats(1).await;
    assert_eq!(tables.owner(GroupKey(3)), Some((peer("a").id, 1)));
}

#[tokio::test(start_paused = true)]
async fn one_cut_off_for_long_learns_what_others_have_taken() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    let stay = a.mine(1).await;
    drop(a.mine(2).await);
    a.store.set_reach(Reach::Silent);
    sleep(EXPIRY * 2).await;
    drop(b.mine(1).await);
    assert!(a.is_mine(1), "it does not know");
    a.store.set_reach(Reach::Well);
    beats(3).await;
    assert!(matches!(a.known(1), Some(Whose::Theirs(owner)) if owner == peer("b")));
    assert_eq!(a.left(), [], "a request from before is still served");
    drop(stay);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(a.left(), [GroupKey(1)]);
    assert!(a.is_mine(2), "nobody has taken that one");
    assert_eq!(tables.owner(GroupKey(2)), Some((peer("a").id, 1)));
}

/// Or its owner would go on with intervals that it learned from half of the samples, and wait for what was brought elsewhere.
#[tokio::test(start_paused = true)]
async fn what_two_have_served_begins_anew_where_it_stays() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop((a.mine(1).await, a.mine(2).await, b.mine(3).await));
    a.store.set_reach(Reach::Silent);
    sleep(EXPIRY * 2).await;
    let stay = b.mine(1).await;
    a.store.set_reach(Reach::Well);
    let asked = Instant::now();
    while !matches!(b.known(1), Some(Whose::Moving)) {
        assert!(asked.elapsed() < HEARTBEAT_EVERY * 4, "it is told");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((a.left(), b.left()), (vec![GroupKey(1)], vec![]), "a request of it is still served");
    drop(stay);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(b.left(), [GroupKey(1)], "and of it alone");
    assert!(b.is_mine(1) && b.is_mine(3) && a.is_mine(2));
    assert_eq!(tables.owner(GroupKey(1)), Some((peer("b").id, 2)));
    beats(30).await;
    assert_eq!((a.left().len(), b.left().len()), (1, 1), "once");
}

#[tokio::test(start_paused = true)]
async fn leaving_without_the_database_takes_no_longer_than_allowed() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    let _stay = a.mine(1).await;
    a.store.set_reach(Reach::Silent);
    let asked = Instant::now();
    a.keeper.leave(Duration::from_secs(3)).await;
    assert!(asked.elapsed() <= Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_without_the_database_serves_all_and_comes_in_later() {
    let tables = tables();
    let a = One::starting(&tables, "a", Reach::Refused);
    drop(a.mine(1).await);
    beats(2).await;
    assert_eq!(tables.owner(GroupKey(1)), None);
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert_eq!(tables.owner(GroupKey(1)), Some((peer("a").id, 1)));
    assert!(a.is_mine(1) && a.left().is_empty());
}

/// After the database was away for all: the others are about to be heard of again.
#[tokio::test(start_paused = true)]
async fn who_is_first_to_reach_the_database_again_takes_nothing_from_the_others() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(b.mine(1).await);
    assert_eq!(a.theirs(1).await, peer("b"));
    a.store.set_reach(Reach::Refused);
    b.store.set_reach(Reach::Refused);
    sleep(EXPIRY * 2).await;
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert_eq!(a.theirs(1).await, peer("b"), "it is served there all the time");
    b.store.set_reach(Reach::Well);
    beats(6).await;
    assert_eq!(a.theirs(1).await, peer("b"));
    assert!(b.is_mine(1) && b.left().is_empty());
    // And one that never comes again is gone in the end.
    a.store.set_reach(Reach::Refused);
    b.store.set_reach(Reach::Refused);
    b.task.abort();
    sleep(EXPIRY * 2).await;
    a.store.set_reach(Reach::Well);
    sleep(EXPIRY + HEARTBEAT_EVERY * 2).await;
    drop(a.mine(1).await);
}

/// Whoever comes in learns who has what, and what is new: nothing of that is to be served twice when the database is away.
#[tokio::test(start_paused = true)]
async fn what_exists_is_known_before_anybody_sends_for_it() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    drop(a.mine(1).await);
    sleep(Duration::from_secs(60)).await;
    let b = One::start(&tables, "b").await;
    assert!(matches!(b.known(1), Some(Whose::Theirs(owner)) if owner == peer("a")));
    drop(a.mine(2).await);
    assert!(b.known(2).is_none(), "of this it has not heard yet");
    sleep(Duration::from_secs(11)).await;
    assert!(matches!(b.known(2), Some(Whose::Theirs(owner)) if owner == peer("a")));
    b.store.set_reach(Reach::Refused);
    beats(2).await;
    assert_eq!(b.theirs(1).await, peer("a"));
    // What is taken without a name is claimed under that of whoever sends.
    for _ in 0..3 {
        b.keeper.hopped(&peer("a"), false);
    }
    a.task.abort();
    drop((b.mine(1).await, b.mine(2).await));
    sleep(EXPIRY).await;
    b.store.set_reach(Reach::Well);
    sleep(EXPIRY * 3).await;
    assert_eq!(b.left(), [], "served all the time");
    for number in [1, 2] {
        assert!(b.is_mine(number));
        assert_eq!(tables.owner(GroupKey(number)), Some((peer("b").id, 2)));
    }
}

/// One is back before the others, and was sent a group that it did not know.
#[tokio::test(start_paused = true)]
async fn what_was_served_twice_stays_with_whom_the_database_knew() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(b.mine(1).await);
    for one in [&a, &b] {
        one.store.set_reach(Reach::Refused);
    }
    beats(1).await;
    drop(a.mine(1).await);
    sleep(EXPIRY * 2).await;
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert!(a.is_mine(1), "nobody knows whether the other one lives");
    b.store.set_reach(Reach::Well);
    beats(2).await;
    assert_eq!(a.theirs(1).await, peer("b"));
    assert_eq!(a.left(), [GroupKey(1)], "its memory goes");
    assert!(b.is_mine(1) && b.left().is_empty());
    assert_eq!(tables.owner(GroupKey(1)), Some((peer("b").id, 1)));
}

/// A backup was played back, or a standby that was behind took over.
#[tokio::test(start_paused = true)]
async fn a_database_that_has_forgotten_is_believed_and_heartbeats_go_on() {
    let before = tables();
    let (a, b) = (One::start(&before, "a").await, One::start(&before, "b").await);
    drop(a.mine(1).await);
    a.keeper.leave(Duration::from_secs(1)).await;
    drop(b.mine(1).await); // by its second epoch
    b.store.set_reach(Reach::Refused);
    sleep(EXPIRY * 2).await;
    before.forget();
    b.store.set_reach(Reach::Well);
    beats(2).await;
    let statements = before.statements();
    beats(10).await;
    assert!(before.statements() - statements <= 40, "{} statements", before.statements() - statements);
    let c = One::start(&before, "c").await;
    assert_eq!(c.theirs(1).await, peer("b"));
    assert!(b.is_mine(1));
}

/// Or it would lapse over them, be sure of none any more, and begin anew with all of them.
#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_wait_for_claims_however_many_there_are() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    a.store.set_reach(Reach::Refused);
    beats(1).await;
    for number in 0..20_000 {
        drop(a.mine(number).await);
    }
    a.store.set_reach(Reach::Late(Duration::from_millis(300)));
    let mut silence = Duration::ZERO;
    for _ in 0..60 {
        beats(1).await;
        silence = silence.max(tables.silence(&peer("a").id).expect("it is there"));
    }
    assert!(silence < HEARTBEAT_EVERY * 3, "{silence:?}");
    assert_eq!(a.metric("promdedup_placement_unconfirmed_groups"), 0, "all of them are claimed in the end");
}

/// The database has lost its rows, and then hears the heartbeat of one that does not hear what it says to it.
#[tokio::test(start_paused = true)]
async fn a_lapse_is_noticed_although_the_answer_that_told_of_it_got_lost() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop(a.mine(1).await);
    assert_eq!(b.theirs(1).await, peer("a"));
    tables.forget();
    a.store.set_reach(Reach::Unanswered);
    beats(1).await;
    b.keeper.misdirected(GroupKey(1), &peer("a"));
    drop(b.mine(1).await);
    a.store.set_reach(Reach::Well);
    beats(2).await;
    assert!(b.is_mine(1) && !a.is_mine(1), "one has it");
    assert_eq!(a.theirs(1).await, peer("b"));
    assert_eq!(a.left(), [GroupKey(1)]);
}

/// A failover to a server that was behind. Its epochs are lower than those that instances know, so nobody heeds its news.
#[tokio::test(start_paused = true)]
async fn a_database_that_falls_back_says_anew_whose_a_group_is() {
    let tables = tables();
    let (a, b) = (One::start(&tables, "a").await, One::start(&tables, "b").await);
    drop((a.mine(1).await, a.mine(2).await, b.mine(3).await));
    beats(1).await;
    let copy = tables.copy();
    let gift = Gift { key: GroupKey(1), epoch: 1, load: 0.0, to: Some(peer("b")) };
    assert_eq!(a.store.give(&gift).await, Ok(Some(2)));
    sleep(Duration::from_millis(1)).await;
    drop(b.mine(1).await);
    assert_eq!(a.theirs(1).await, peer("b"));
    tables.fall_back(copy);
    beats(2).await;
    assert_eq!(tables.owner(GroupKey(1)), Some((peer("a").id, 1)));
    assert_eq!(b.theirs(1).await, peer("a"), "it is the database's to say");
    assert_eq!(b.left(), [GroupKey(1)]);
    // What `b` passes on to `a` arrives there as another instance's, so that it asks.
    a.keeper.misdirected(GroupKey(1), &peer("b"));
    drop(a.mine(1).await);
    assert!(a.is_mine(2) && b.is_mine(3), "these were not given away meanwhile");
}

/// Requests learn it by their stay: what they see of the group may be half of it.
#[tokio::test(start_paused = true)]
async fn a_group_may_be_split_for_as_long_as_nobody_confirms_whose_it_is() {
    let tables = tables();
    let a = One::start(&tables, "a").await;
    assert!(!a.mine(1).await.may_be_split());
    a.store.set_reach(Reach::Silent);
    sleep(EXPIRY).await;
    assert!(a.mine(1).await.may_be_split(), "others take it over from now on");
    assert!(a.mine(2).await.may_be_split(), "nobody could be asked");
    a.store.set_reach(Reach::Well);
    beats(4).await;
    assert!(!a.mine(1).await.may_be_split() && !a.mine(2).await.may_be_split());
    let b = One::starting(&tables, "b", Reach::Refused);
    assert!(b.mine(1).await.may_be_split(), "it knows nothing");
}
