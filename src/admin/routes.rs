//! The admin routes.

use super::openmetrics;
use super::page;
use super::readiness::Readiness;
use super::status::Status;
use crate::receive::Gate;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use prometheus::{Registry, TextEncoder};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone)]
struct Shown {
    registry: Registry,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
}

pub(super) fn router(
    registry: Registry,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
    gate: Option<Arc<Gate>>,
) -> Router {
    let shown = Router::new()
        .route("/", get(index))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", page::STYLE)))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status_json))
        .fallback(|| async { (StatusCode::NOT_FOUND, "no such page\n") });
    let shown = match gate {
        Some(gate) => shown.layer(from_fn_with_state(gate, let_in)),
        None => shown,
    };
    // Whoever probes has no credentials, and learns no more than whether to send traffic here.
    shown.route("/-/healthy", get(|| async { "healthy\n" })).route("/-/ready", get(ready)).with_state(Shown {
        registry,
        readiness,
        status,
    })
}

async fn let_in(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let Err(denied) = gate.admit(request.headers()).await else { return next.run(request).await };
    let text = match denied.status() {
        StatusCode::UNAUTHORIZED => "a user and a password are asked for here\n".to_owned(),
        _ => format!("{denied}\n"),
    };
    let mut response = (denied.status(), text).into_response();
    Gate::challenge(denied, response.headers_mut());
    if denied.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn index(State(shown): State<Shown>) -> Response {
    let view = shown.status.now(&shown.readiness, now_s());
    // Nothing but what this listener has itself may run or be loaded, whatever a label says.
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, page::html(&view).into_string()).into_response()
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
}

#[expect(clippy::disallowed_methods, reason = "how old a sample is, is told by the wall clock")]
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.now() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn status_json(State(shown): State<Shown>) -> Response {
    let status = shown.status.now(&shown.readiness, now_s()).json();
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
