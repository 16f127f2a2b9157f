//! The HTTP endpoints. All of them only read the view.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;
use tracing::error;

use crate::{metrics::Exposition, view::View};

/// The latest view; nothing before the first.
pub type LatestView = watch::Receiver<Option<Arc<View>>>;

#[derive(Clone)]
struct Shared {
    view: LatestView,
    exposition: Arc<Exposition>,
}

/// The routes, GET only: anything else is answered 404 or 405.
pub fn router(view: LatestView) -> Router {
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Shared {
            view,
            exposition: Arc::new(Exposition::default()),
        })
}

async fn landing() -> Html<&'static str> {
    Html(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>connstate</title></head>\n<body>\n\
         <h1>connstate</h1>\n<p>Which TCP connections do not finish closing, whose they are, \
         and why.</p>\n<ul>\n<li><a href=\"/metrics\">metrics</a></li>\n\
         <li><a href=\"/healthz\">healthz</a>: the agent answers</li>\n\
         <li><a href=\"/readyz\">readyz</a>: the agent has numbers to show</li>\n</ul>\n\
         </body>\n</html>\n",
    )
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let Some(view) = shared.view.borrow().clone() else {
        return not_ready();
    };
    match shared.exposition.render(&view) {
        Ok(text) => ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            error!(%error, "no metrics served");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let view = shared.view.borrow().clone();
    if view.is_some_and(|view| view.is_complete()) {
        "ready\n".into_response()
    } else {
        not_ready()
    }
}

fn not_ready() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "not ready: the first count is not complete\n",
    )
        .into_response()
}
