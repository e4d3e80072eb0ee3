//! IDENTITY of a series.
