//! STAND-INS: embedded senders and receiver.
