//! What a server would get, written by the functions that write it when it is sent.

use http::header::{CONNECTION, HeaderMap};
use http::{Method, Uri, Version};

use crate::config::Protocol;
use crate::message::Rejection;
use crate::sessions::Caller;
use crate::upstream::forward::{Attempt, Upstreams};
use crate::upstream::headers::{Client, Ids, Rewrite};
use crate::upstream::pool::Pools;
use crate::upstream::tunnel;

/// A request that has passed the gate, but for its body.
pub struct Trial<'a> {
    /// Index into the configuration's upstreams.
    pub upstream: usize,
    /// The method.
    pub method: &'a Method,
    /// Path and query as they are sent.
    pub target: &'a Uri,
    /// What the client speaks.
    pub version: Version,
    /// The client's header section.
    pub headers: &'a HeaderMap,
    /// Whose token it was, if one was looked at.
    pub caller: Option<&'a Caller>,
    /// Who sent it.
    pub client: &'a Client,
    /// Its ids.
    pub ids: Ids<'a>,
    /// Whether Authorization is passed on.
    pub forward_authorization: bool,
    /// Whether the credential came in Sec-WebSocket-Protocol, from where it is not passed on.
    pub websocket_token: bool,
}

/// What the first server would get.
pub struct Preview {
    /// Which server.
    pub server: String,
    /// The request line, with the scheme and authority in it for HTTP/2.
    pub line: String,
    /// The header section in its order.
    pub fields: Vec<(String, String)>,
}

impl Upstreams {
    /// Writes a request as it would be sent, without sending it.
    ///
    /// # Errors
    /// What the request did wrong.
    pub fn preview(&self, pools: &Pools, trial: &Trial<'_>) -> Result<Preview, Rejection> {
        let upstream = self.list.get(trial.upstream).ok_or_else(|| Rejection::Internal("no such upstream".into()))?;
        let h2 = upstream.config.protocol == Protocol::H2;
        let attempt = Attempt {
            upstream,
            pools,
            index: trial.upstream,
            method: trial.method,
            target: trial.target,
            rewrite: Rewrite {
                caller: trial.caller,
                client: trial.client,
                ids: trial.ids,
                authorization: trial.forward_authorization,
                connection: trial.headers.contains_key(CONNECTION),
                chunked: false,
                version: trial.version,
                websocket: !h2 && tunnel::is_asked(trial.method, trial.version, trial.headers)?,
                websocket_token: trial.websocket_token,
            },
            progress: None,
            recheck: &|| Ok(()),
        };
        let index = upstream.config.servers.iter().position(|server| server.weight > 0).unwrap_or_default();
        let server = attempt.server(index).ok_or_else(|| Rejection::Internal("no such server".into()))?;
        let (line, fields) = if h2 {
            let request = attempt.request(trial.headers, server)?;
            let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            (format!("{} {} HTTP/2", request.method(), request.uri()), request.headers().iter().map(field).collect())
        } else {
            let mut section = Vec::new();
            attempt.write(&mut section, trial.headers, server)?;
            let text = String::from_utf8_lossy(&section);
            let mut lines = text.split("\r\n");
            let line = lines.next().unwrap_or_default().to_owned();
            let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
            (line, lines.filter_map(field).collect())
        };
        Ok(Preview { server: server.settings.to_string(), line, fields })
    }
}
