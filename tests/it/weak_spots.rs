//! The weak spots of concurrency and acknowledgement: stories that a dedup proxy gets wrong first.

mod one_request;
mod rollback;
mod story;
