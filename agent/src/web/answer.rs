//! What a request passes before it reaches the routes.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::body::{Frame, SizeHint};
use tower_service::Service as _;

use super::{
    auth::Admission,
    refusals::Refusal,
    server::{Seat, Site},
};

/// Answers a request by the routes, or says why not. In this order: the rate, the user, the
/// method, the body; an answer to who may not read tells nothing of what there is.
pub(super) async fn answer<B>(
    site: &Site,
    seat: Arc<Seat>,
    request: Request<B>,
) -> Result<Response, Infallible>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let served = Served { seat };
    served.seat.answering();
    let config = site.config.as_ref().map(|live| live.config());
    let mut response = if let Some(refusal) = judge(site, &request).await {
        refusal
    } else {
        let Ok(response) = site.router.clone().call(request).await;
        response
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if streams && !served.seat.stream() {
        site.refusals.count(Refusal::Streams);
        response = refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "enough others listen to events\n",
        );
        retry_after(response.headers_mut(), "10");
    }
    if let Some(config) = config {
        for (name, value) in &config.headers {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response.map(|body| {
        Body::new(Whole {
            body,
            _served: served,
        })
    }))
}

/// Why a request is not answered by the routes.
async fn judge<B: HttpBody>(site: &Site, request: &Request<B>) -> Option<Response> {
    if let Some(live) = &site.config {
        let config = live.config();
        if !config.admits(Instant::now()) {
            site.refusals.count(Refusal::RateLimit);
            let text = "more requests than rate_limit allows\n";
            let mut refusal = refusal(StatusCode::TOO_MANY_REQUESTS, text);
            retry_after(refusal.headers_mut(), "1");
            return Some(refusal);
        }
        let credentials = request.headers().get(header::AUTHORIZATION);
        match live.gatekeeper.admit(&config.users, credentials).await {
            Admission::Admitted => {}
            Admission::Unknown => {
                site.refusals.count(Refusal::Unauthorized);
                let text = "a user and the password are wanted\n";
                let mut refusal = refusal(StatusCode::UNAUTHORIZED, text);
                let basic = HeaderValue::from_static("Basic");
                refusal
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, basic);
                return Some(refusal);
            }
            Admission::Busy => {
                site.refusals.count(Refusal::Busy);
                let text = "too many passwords are being checked\n";
                let mut refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, text);
                retry_after(refusal.headers_mut(), "5");
                return Some(refusal);
            }
        }
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        let allow = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(header::ALLOW, allow);
        return Some(refusal);
    }
    if !request.body().is_end_stream() {
        let text = "a request has no body here\n";
        let mut refusal = refusal(StatusCode::PAYLOAD_TOO_LARGE, text);
        let close = HeaderValue::from_static("close");
        refusal.headers_mut().insert(header::CONNECTION, close);
        return Some(refusal);
    }
    None
}

fn refusal(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

fn retry_after(headers: &mut HeaderMap, seconds: &'static str) {
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
}

/// A place at which a request is answered until this is dropped.
struct Served {
    seat: Arc<Seat>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.seat.idle();
    }
}

/// The body of an answer, which ends the answering when it is through.
struct Whole {
    body: Body,
    _served: Served,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
