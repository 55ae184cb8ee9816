//! A small application to put behind the gateway: `cargo run --example backend -- 127.0.0.1:5000`.
//!
//! `/` says hello, `/secret` answers 42, `/echo` shows what arrived, `/slow?ms=500` answers late and
//! `/stream` sends a line every 200 ms. It knows nothing of tokens: the gateway has checked them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};

type Body = BoxBody<Bytes, Infallible>;

const DEFAULT_ADDRESS: &str = "127.0.0.1:5000";
const LONGEST_WAIT: u64 = 60_000;
const LARGEST_BODY: usize = 1 << 20;
const STREAMED_LINES: u32 = 15;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_ADDRESS.into());
    let listener = TcpListener::bind(&address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("backend listens on http://{}", listener.local_addr()?);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(async move {
                    let service = service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/" => whole(StatusCode::OK, "text/plain; charset=utf-8", "Hello, World!\n"),
        "/secret" => json(StatusCode::OK, &json!({"answer": 42})),
        "/echo" => echo(request).await,
        "/slow" => slow(request.uri().query().unwrap_or_default()).await,
        "/stream" => stream(),
        _ => json(StatusCode::NOT_FOUND, &json!({"message": "nothing here"})),
    })
}

/// Method, target, headers in order and body, as they arrived.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => json(
            StatusCode::OK,
            &json!({
                "method": head.method.as_str(),
                "target": head.uri.to_string(),
                "headers": headers,
                "body": String::from_utf8_lossy(&body.to_bytes()),
            }),
        ),
        Err(error) => json(StatusCode::BAD_REQUEST, &json!({"message": error.to_string()})),
    }
}

/// Answers after `ms` milliseconds, at most a minute.
async fn slow(query: &str) -> Response<Body> {
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("ms="));
    let wait = wanted.and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(1000).min(LONGEST_WAIT);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    json(StatusCode::OK, &json!({"waited_ms": wait}))
}

/// One line every 200 ms, for three seconds.
fn stream() -> Response<Body> {
    let mut pace = interval(Duration::from_millis(200));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    with_type("text/plain; charset=utf-8", Response::new(Lines { sent: 0, pace }.boxed()))
}

/// A body that grows by a line at each beat.
struct Lines {
    sent: u32,
    pace: Interval,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent == STREAMED_LINES {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(context));
        self.sent += 1;
        let line = format!("line {} of {STREAMED_LINES}\n", self.sent);
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    whole(status, "application/json", &format!("{value}\n"))
}

fn whole(status: StatusCode, kind: &'static str, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed());
    *response.status_mut() = status;
    with_type(kind, response)
}

fn with_type(kind: &'static str, mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
