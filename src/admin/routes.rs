//! The admin routes.

use super::openmetrics;
use super::readiness::Readiness;
use super::status::Status;
use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use prometheus::{Registry, TextEncoder};
use std::sync::Arc;

#[derive(Clone)]
struct Shown {
    registry: Registry,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
}

pub(super) fn router(registry: Registry, readiness: Arc<Readiness>, status: Arc<Status>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .route("/api/v1/status", get(status_json))
        .with_state(Shown { registry, readiness, status })
}

async fn index() -> Html<&'static str> {
    Html(concat!(
        "<!doctype html><title>promdedup</title><h1>promdedup ",
        env!("CARGO_PKG_VERSION"),
        "</h1><ul><li><a href=\"/metrics\">/metrics</a><li><a href=\"/-/healthy\">/-/healthy</a>",
        "<li><a href=\"/-/ready\">/-/ready</a><li><a href=\"/api/v1/status\">/api/v1/status</a></ul>\n",
    ))
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.now() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn status_json(State(shown): State<Shown>) -> Response {
    let status = shown.status.now(&shown.readiness);
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], format!("{status:#}\n")).into_response()
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let families = shown.registry.gather();
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if openmetrics::is_preferred(accept) {
        (openmetrics::CONTENT_TYPE, openmetrics::encode(&families))
    } else {
        match TextEncoder::new().encode_to_string(&families) {
            Ok(text) => (TEXT, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
            }
        }
    };
    ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}
