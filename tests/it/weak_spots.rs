//! The weak spots of concurrency and acknowledgement: stories that a dedup proxy gets wrong first.

mod bounds;
mod exemplars;
mod flights;
mod hang_up;
mod leaning;
mod markers;
mod one_request;
mod rollback;
mod story;
mod takeovers;
