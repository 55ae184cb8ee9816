//! The route table: host and canonical path choose, the most specific first; methods are looked at afterwards.
//!
//! A small trie of our own, because routes are compared by decoded segments, exactly, and with backtracking: a literal
//! that dead-ends further down must not hide a `{name}` or a `*` above it. A search visits no node twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::Method;

use super::host;
use super::path::{Path, decode};
use crate::config::{EncodedSlash, Route, Segment};

/// All routes, ready to be searched.
#[derive(Debug, Default)]
pub struct Table {
    hosts: BTreeMap<String, Node>,
    any_host: Node,
}

/// Two routes that cannot stand in one table, or one that cannot stand in any. Numbers are those of `config.routes`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Equal host and path, once decoded, and a method in common.
    #[error("routes[{second}] has the host, the path and a method of routes[{first}]")]
    Equal {
        /// The earlier one.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// No `Host` field could name it.
    #[error("routes[{route}].host: {source}")]
    Host {
        /// Which one.
        route: usize,
        /// What is wrong with it.
        source: host::HostError,
    },
    /// No token of RFC 9110.
    #[error("routes[{route}].methods: {method:?} is no method")]
    Method {
        /// Which one.
        route: usize,
        /// As written.
        method: String,
    },
}

/// What a request found. All numbers are indexes into `config.routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The route that forwards.
    pub route: usize,
    /// Routes of the path's other readings: their rules must hold too. Nearly always empty.
    pub also: Vec<usize>,
}

/// Why a request found nothing; the text is meant for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// No route for the host and the path, in one of its readings.
    #[error("No route for this host and path")]
    NoRoute,
    /// A route, but not for the method.
    #[error("The method is not allowed for the requested URL.")]
    MethodNotAllowed {
        /// Those that are, as `Allow` wants them.
        allow: String,
    },
    /// `%2f` on a route that does not take it.
    #[error("The path holds an encoded slash (%2F), which its route allows only with `encoded_slash: preserve`")]
    EncodedSlash,
}

impl Table {
    /// Builds the table.
    ///
    /// # Errors
    /// The first route that has no place in it.
    pub fn new(routes: &[Route]) -> Result<Self, TableError> {
        let mut table = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let mut node = match &route.host {
                None => &mut table.any_host,
                Some(name) => {
                    let host = host::parse(name.as_bytes());
                    let host = host.map_err(|source| TableError::Host { route: index, source })?;
                    table.hosts.entry(host.as_str().to_owned()).or_default()
                }
            };
            for segment in &route.path.segments {
                node = match segment {
                    Segment::Any => node.any.get_or_insert_default(),
                    Segment::Literal(text) => node.literals.entry(decode(text.as_bytes()).into()).or_default(),
                };
            }
            let end = if route.path.wildcard { &mut node.below } else { &mut node.here };
            end.get_or_insert_default().add(index, route)?;
        }
        Ok(table)
    }

    /// Finds the route of a request, and those of the path's other readings. `host` is the form that
    /// [`host::Host::as_str`] gives.
    ///
    /// # Errors
    /// No route, no method, or a `%2f` that the route does not take.
    pub fn find(&self, host: &str, method: &Method, path: &Path<'_>) -> Result<Match, Miss> {
        let chosen = self.choose(host, method, path.as_str())?;
        if path.has_encoded_slash() && chosen.encoded_slash == EncodedSlash::Reject {
            return Err(Miss::EncodedSlash);
        }
        let mut found = Match { route: chosen.route, also: Vec::new() };
        for reading in path.other_readings() {
            let other = self.choose(host, method, &reading)?.route;
            if other != found.route && !found.also.contains(&other) {
                found.also.push(other);
            }
        }
        Ok(found)
    }

    /// The routes of a host and path, each with its method; `None`: every one.
    pub fn at(&self, host: &str, path: &Path<'_>) -> impl Iterator<Item = (Option<&Method>, usize)> {
        let entries = self.leaf(host, path.as_str()).into_iter().flat_map(|leaf| &leaf.entries);
        entries.map(|entry| (entry.method.as_ref(), entry.route))
    }

    fn choose(&self, host: &str, method: &Method, path: &str) -> Result<&Entry, Miss> {
        self.leaf(host, path).ok_or(Miss::NoRoute)?.choose(method)
    }

    fn leaf(&self, host: &str, path: &str) -> Option<&Leaf> {
        let segments = path.strip_prefix('/').unwrap_or(path).as_bytes();
        let named = if self.hosts.is_empty() { None } else { self.hosts.get(host) };
        named.and_then(|node| node.find(segments)).or_else(|| self.any_host.find(segments))
    }
}

/// What follows after some segments.
#[derive(Debug, Default)]
struct Node {
    /// By the decoded segment: `%C3%A9`, `%c3%a9` and a raw `é` are one, as they are to every server.
    literals: BTreeMap<Box<[u8]>, Node>,
    /// `{name}`.
    any: Option<Box<Node>>,
    /// The path ends.
    here: Option<Leaf>,
    /// `*`.
    below: Option<Leaf>,
}

impl Node {
    /// `segments` is the rest of a canonical path, without the slash before it: one at its end changes nothing.
    fn find(&self, segments: &[u8]) -> Option<&Leaf> {
        if segments.is_empty() {
            return self.here.as_ref().or(self.below.as_ref());
        }
        let mut parts = segments.splitn(2, |&byte| byte == b'/');
        let segment = parts.next().unwrap_or_default();
        let rest = parts.next().unwrap_or_default();
        let name = if segment.contains(&b'%') { Cow::Owned(decode(segment)) } else { Cow::Borrowed(segment) };
        let literal = self.literals.get(&*name).and_then(|node| node.find(rest));
        literal.or_else(|| self.any.as_ref().and_then(|node| node.find(rest))).or(self.below.as_ref())
    }
}

/// The routes of one host and path: as many as their methods keep apart.
#[derive(Debug, Default)]
struct Leaf {
    entries: Vec<Entry>,
    allow: String,
}

#[derive(Debug)]
struct Entry {
    /// `None`: every one.
    method: Option<Method>,
    route: usize,
    encoded_slash: EncodedSlash,
}

impl Leaf {
    fn add(&mut self, index: usize, route: &Route) -> Result<(), TableError> {
        let mut methods = Vec::new();
        for text in &route.methods {
            let method = Method::from_bytes(text.as_bytes());
            methods.push(Some(method.map_err(|_| TableError::Method { route: index, method: text.clone() })?));
        }
        if methods.is_empty() {
            methods.push(None);
        }
        for method in methods {
            let meets = |known: &&Entry| known.method.is_none() || method.is_none() || known.method == method;
            match self.entries.iter().find(meets) {
                // The same method twice in one route.
                Some(known) if known.route == index => {}
                Some(known) => return Err(TableError::Equal { first: known.route, second: index }),
                None => self.entries.push(Entry { method, route: index, encoded_slash: route.encoded_slash }),
            }
        }
        let named = self.entries.iter().filter_map(|entry| entry.method.as_ref());
        self.allow = allow(named.map(Method::as_str).collect());
        Ok(())
    }

    /// A HEAD that no route names is a GET.
    fn choose(&self, method: &Method) -> Result<&Entry, Miss> {
        let find = |wanted: &Method| {
            self.entries.iter().find(|entry| entry.method.as_ref().is_none_or(|allowed| allowed == wanted))
        };
        let found = find(method).or_else(|| if method == Method::HEAD { find(&Method::GET) } else { None });
        found.ok_or_else(|| Miss::MethodNotAllowed { allow: self.allow.clone() })
    }
}

/// Methods as `Allow` lists them. HEAD follows GET.
pub fn allow(mut methods: Vec<&str>) -> String {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

#[cfg(test)]
mod tests;
