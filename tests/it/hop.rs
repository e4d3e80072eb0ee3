//! Several instances: what is another's is passed on, once, and answered for.

mod astray;
mod instances;
mod mixed;
mod secrets;
mod split;
mod whole;
