//! The exchange with a server over HTTP/2: the same rules, one stream of a shared connection.

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{Request, Uri, Version};

use crate::message::{Body, Rejection};
use crate::upstream::body::Upload;
use crate::upstream::forward::pick::{Turns, outcome};
use crate::upstream::forward::{Attempt, Reply, Server};
use crate::upstream::h2::{self, Demand};
use crate::upstream::resets::{Requester, SETTLE};
use crate::upstream::wire::Broken;

impl Attempt<'_> {
    /// Tries one server after the other, for as long as none can have acted on the request.
    pub(super) async fn run_h2(&self, headers: HeaderMap, mut upload: Option<Upload>) -> Result<Reply, Rejection> {
        let timeouts = &self.upstream.config.timeouts;
        let repeatable = upload.is_none() && self.method.is_idempotent();
        let mut turns = Turns::default();
        let requester = Requester::new(self.rewrite.client.address, self.pools.resets());
        let hasty = requester.is_hasty(self.pools.clock().now());
        if hasty {
            tokio::time::sleep(SETTLE).await;
        }
        let body = upload.as_ref().map_or(0, Upload::size);
        let mut failed = None;
        while let Some(server) = self.next(&mut turns)? {
            let flight = self.upstream.balance.enter(server.index);
            let request = self.request(&headers, server)?;
            let demand = Demand { requester: &requester, hasty, body, avoid: failed.as_ref() };
            let place = match server.pool.stream(server.settings, server.tls, timeouts.connect, demand).await {
                Ok(place) => place,
                Err(error) => {
                    self.miss(&mut turns, server, error);
                    continue;
                }
            };
            let (reused, link) = (place.is_reused(), place.link());
            match place.exchange(request, &mut upload, self.deadline(), timeouts.idle).await {
                Ok(response) => {
                    self.report(server, outcome(response.status()));
                    let response = response.map(|body| Body::stream(body.with(flight)));
                    return Ok(Reply { response, tunnel: None });
                }
                Err(broken)
                    if turns.handed_back() == 0
                        && h2::may_repeat(&broken, repeatable, reused)
                        && (matches!(broken, Broken::Unsent(_)) || upload.as_mut().is_none_or(Upload::rewind)) =>
                {
                    turns.hand_back(broken);
                    failed = Some(link);
                }
                // Such a client shares its connection with others like it: that it broke tells nothing of the server.
                Err(broken @ Broken::Stream(_)) if hasty => {
                    return Err(Rejection::UpstreamUnreachable(broken.into()));
                }
                Err(broken) => return Err(self.reject(server, broken)),
            }
        }
        Err(turns.end())
    }

    /// The head of a request over HTTP/2.
    pub(super) fn request(&self, headers: &HeaderMap, server: Server<'_>) -> Result<Request<()>, Rejection> {
        let host = server.host.or_else(|| headers.get(HOST));
        let host = host.map(HeaderValue::as_bytes).and_then(|host| Authority::try_from(host).ok());
        let host = host.ok_or_else(|| Rejection::BadRequest("Host is missing or malformed".into()))?;
        let mut parts = Parts::default();
        parts.scheme = Some(if server.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(host);
        parts.path_and_query = Some(match self.target.path_and_query() {
            Some(target) => target.clone(),
            None => PathAndQuery::from_static("/"),
        });
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| Rejection::Internal(error.into()))?;
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.pools.rules().map(headers, &self.rewrite)?;
        Ok(request)
    }
}
