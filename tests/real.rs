//! Real Prometheus.
