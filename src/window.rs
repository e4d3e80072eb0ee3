//! WINDOW: what is remembered.
