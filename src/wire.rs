//! WIRE: bytes in, bytes out.
