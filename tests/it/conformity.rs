//! What the specifications of remote write 1.0 and 2.0 ask of a receiver and of a sender, asked of the whole running
//! proxy: over HTTP, with a stand-in for Thanos Receive behind it, so that both the answer and what is stored are
//! looked at. `tests/conformity.md` says which test holds which rule.
//!
//! Owns the cases, as rows. How a rule is kept is tested where it is kept.

mod bad_counts;
mod bodies;
mod combined;
mod exemplars;
mod floats;
mod histograms;
mod metadata;
mod outgoing;
mod requests;
mod rows;
mod sender;
mod table;
mod upstream;
