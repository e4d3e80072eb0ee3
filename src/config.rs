//! CONFIG: the only reader of the environment.
