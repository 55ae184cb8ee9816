//! HTTP messages as they pass through: the body of a response, and the reading of a bounded request body.

pub mod rejection;
pub mod grpc;
pub mod credential;
pub mod presence;
mod body_state;

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

pub use body_state::{BodyGuard, BodyState, IncomingBody};
pub use hyper::body::Incoming;
pub use presence::Presence;
pub use rejection::Rejection;

/// A cause that is logged and never shown to a client.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The body of a response: written here, or passed on from an upstream as it arrives.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes.
    Full(Bytes),
    /// Whatever comes, unbuffered.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = Cause>>>),
}

impl Body {
    /// A body that is passed on while it arrives.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = Cause> + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Why a request body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It was not whole within this time.
    #[error("the body was not whole within {0:?}")]
    Late(Duration),
    /// The connection broke or the framing is wrong.
    #[error("the body could not be read")]
    Broken(#[source] hyper::Error),
}

async fn read(mut body: Incoming, limit: usize, guard: Option<&BodyGuard>) -> Result<Bytes, ReadError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge(limit));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.map_err(ReadError::Broken)?.into_data() {
            if whole.len() + part.len() > limit {
                return Err(ReadError::TooLarge(limit));
            }
            if let Some(guard) = guard {
                guard.note(Some(part.len()));
                guard.note(None);
            }
            whole.extend_from_slice(&part);
        }
    }
    Ok(whole.freeze())
}
