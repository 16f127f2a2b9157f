//! The versioned JSON API. GET only; nothing here changes anything but what the stream tells.
//!
//! [`snapshot`], [`findings`] and [`event`] are what it says, one of the last at a time in
//! [`events`]; [`openapi`] describes it.

pub mod event;
pub mod events;
pub mod findings;
pub mod openapi;
pub mod snapshot;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::{events::Streams, findings::FindingsQuery, snapshot::Snapshot};
use crate::{feed::Feed, http::LatestView, view::View};

/// The routes beneath `/api/v1`. Streams end once `stop` is true.
pub fn router(view: LatestView, feed: Feed, stop: watch::Receiver<bool>) -> Router {
    let events = Router::new()
        .route("/api/v1/events", get(events::events))
        .with_state(Streams::of(feed, stop));
    Router::new()
        .route("/api/v1/snapshot", get(snapshot))
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/openapi.json", get(openapi))
        .with_state(view)
        .merge(events)
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What is wrong, and what to do.
    pub error: String,
}

impl Refusal {
    fn answer(status: StatusCode, error: impl Into<String>) -> Response {
        let error = error.into();
        (status, Json(Self { error })).into_response()
    }

    fn not_ready() -> Response {
        let error = "the first census is not complete: ask again in a moment";
        Self::answer(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

async fn snapshot(State(latest): State<LatestView>) -> Response {
    let view = latest.borrow().clone();
    match view.as_deref().and_then(Snapshot::of) {
        Some(snapshot) => Json(snapshot).into_response(),
        None => Refusal::not_ready(),
    }
}

async fn findings(
    State(latest): State<LatestView>,
    query: Result<Query<FindingsQuery>, QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(error) => return Refusal::answer(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let view: Option<Arc<View>> = latest.borrow().clone();
    let Some((view, census)) = view
        .as_deref()
        .and_then(|view| Some((view, view.census.as_deref()?)))
    else {
        return Refusal::not_ready();
    };
    match query.page(&view.findings, census.completed.as_secs_f64()) {
        Ok(page) => Json(page).into_response(),
        Err(error) => Refusal::answer(StatusCode::BAD_REQUEST, error),
    }
}

async fn openapi() -> Json<&'static serde_json::Value> {
    Json(openapi::document())
}

#[cfg(test)]
mod tests {
    use agent_ebpf::{
        close::CloseCause,
        retransmit::{Packet, Trigger},
        state::TcpState,
    };
    use serde::Serialize;

    use crate::detectors::Cause;

    fn names<T: Serialize>(values: &[T], name: fn(&T) -> &'static str) {
        for value in values {
            assert_eq!(serde_json::to_value(value).unwrap(), name(value));
        }
    }

    #[test]
    fn names_in_json_are_the_labels_of_the_metrics() {
        names(&TcpState::ALL, |state| state.name());
        names(&CloseCause::ALL, |cause| cause.name());
        names(&Packet::ALL, |packet| packet.name());
        names(&Trigger::ALL, |trigger| trigger.name());
        names(&Cause::OF_UNFINISHED, |cause| cause.name());
        names(&Cause::OF_FIN_WAIT2, |cause| cause.name());
        names(&Cause::OF_CLOSE_WAIT, |cause| cause.name());
    }
}
