//! Metrics in Prometheus' text format. Labels are route, method, status class and outcome; never a path or a name.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use prometheus::Error;

use crate::clock;
use crate::telemetry::output::Lost;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An upstream answered.
    Forwarded,
    /// The gateway answered what was asked of it.
    Answered,
    /// The gateway refused.
    Refused,
}

impl Outcome {
    const ALL: [&'static str; 3] = ["forwarded", "answered", "refused"];
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `server.limits.connections`.
    Connections,
    /// `server.limits.per_address`.
    PerAddress,
    /// The peer is not in `server.trusted_proxies`.
    UntrustedProxy,
    /// There is no PROXY protocol header, or a wrong one.
    ProxyHeader,
    /// The TLS handshake failed.
    Tls,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// In the order of the declaration.
    const ALL: [&'static str; Self::COUNT] = ["connections", "per_address", "untrusted_proxy", "proxy_header", "tls"];

    /// Its label.
    pub fn label(self) -> &'static str {
        Self::ALL.get(self as usize).copied().unwrap_or_default()
    }
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a store does.
const STORE_OPERATIONS: [&str; 2] = ["read", "write"];

/// Upper bounds of the latency histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    lost: LostLines,
    reloads: IntCounterVec,
    reloaded: IntGauge,
    loaded: IntGauge,
    refused: IntCounterVec,
    evicted: IntCounter,
    gauges: Gauges,
}

/// Lines that were lost: of the access log, of the audit, and in all.
struct LostLines {
    access: IntCounter,
    audit: IntCounter,
    all: IntCounter,
}

impl LostLines {
    fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            access: counter(registry, "portcullis_access_lines_lost_total", "Lines of the access log that were lost.")?,
            audit: counter(registry, "portcullis_audit_lines_lost_total", "Lines of the audit that were lost.")?,
            all: counter(
                registry,
                "portcullis_log_lines_lost_total",
                "Lines of log, access log and audit that were lost: standard output or the audit file took no more.",
            )?,
        })
    }

    fn read(&self, lost: Lost) {
        for (counter, number) in [(&self.access, lost.access), (&self.audit, lost.audit), (&self.all, lost.total())] {
            counter.inc_by(number.saturating_sub(counter.get()));
        }
    }
}

/// What is read off elsewhere when it is asked for.
struct Gauges {
    servers: IntGaugeVec,
    key_sets: IntGaugeVec,
    attempts: IntCounterVec,
    connections: IntGauge,
    revocations: IntGauge,
    store_up: IntGauge,
    feed_silence_ms: IntGauge,
    stale: IntGauge,
    signs: IntGauge,
    store_writable: IntGauge,
    store_errors: IntCounterVec,
}

impl Gauges {
    fn new(registry: &Registry) -> Result<Self, Error> {
        let servers = IntGaugeVec::new(
            Opts::new("portcullis_upstream_server_up", "1 when the server of the upstream gets requests."),
            &["upstream", "server"],
        )?;
        registry.register(Box::new(servers.clone()))?;
        let key_sets = IntGaugeVec::new(
            Opts::new(
                "portcullis_trusted_keys_age_seconds",
                "How long ago the keys of the trusted issuer were fetched; absent before the first time.",
            ),
            &["issuer"],
        )?;
        registry.register(Box::new(key_sets.clone()))?;
        let attempts = IntCounterVec::new(
            Opts::new(
                "portcullis_attempts_refused_total",
                "Logins and registrations that were refused before a password was looked at, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(attempts.clone()))?;
        let store_errors = IntCounterVec::new(
            Opts::new("portcullis_store_errors_total", "Reads of the store and transactions that failed."),
            &["operation"],
        )?;
        registry.register(Box::new(store_errors.clone()))?;
        Ok(Self {
            servers,
            key_sets,
            attempts,
            connections: gauge(registry, "portcullis_connections", "Client connections that are open.")?,
            revocations: gauge(registry, "portcullis_revocations", "Live revocations in memory.")?,
            store_up: gauge(registry, "portcullis_store_up", "1 when the store answered last time.")?,
            feed_silence_ms: gauge(
                registry,
                "portcullis_feed_silence_milliseconds",
                "How long ago the store was heard: the bound on how late a revocation of another process is.",
            )?,
            stale: gauge(registry, "portcullis_stale", "1 when protected routes answer 503 for a silent store.")?,
            store_writable: gauge(
                registry,
                "portcullis_store_writable",
                "1 when the last transaction of the store was committed; at 0 logins, refreshes and logouts are 503.",
            )?,
            store_errors,
            signs: gauge(registry, "portcullis_signs", "0 when there is no key to sign tokens with: logins are 503.")?,
        })
    }
}

/// What the listeners have counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Client connections that are open.
    pub open: u64,
    /// Idle ones that were closed to make room, since the start.
    pub evicted: u64,
}

/// What is read off when metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Client connections.
    pub connections: Connections,
    /// Logins and registrations that were refused before a password was looked at, by reason, since the start.
    pub attempts: [(&'static str, u64); 3],
    /// Live revocations in memory.
    pub revocations: u64,
    /// Whether the store answered when it was last asked.
    pub store_up: bool,
    /// How long ago the store was heard.
    pub feed_silence: Duration,
    /// Whether protected routes answer 503 for it.
    pub stale: bool,
    /// Whether there is a key to sign tokens with.
    pub signs: bool,
    /// Whether the last transaction of the store was committed.
    pub store_writable: bool,
    /// Reads of the store that failed, and transactions, since the start.
    pub store_errors: [u64; 2],
    /// Lines of the logs that were lost since the start.
    pub lost: Lost,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// When two of them clash, which the tests would show.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("portcullis_requests_total", "Requests by route, method, status class and outcome."),
            &["route", "method", "status", "outcome"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("portcullis_request_seconds", "Time until the header section of the answer.")
                .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        let lost = LostLines::new(&registry)?;
        let reloads = IntCounterVec::new(
            Opts::new("portcullis_config_reloads_total", "Reloads of gateway.yaml by outcome."),
            &["outcome"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        let reloaded =
            gauge(&registry, "portcullis_config_last_reload_success", "0 when the last reload kept the old one.")?;
        reloaded.set(1);
        let loaded = gauge(
            &registry,
            "portcullis_config_last_reload_timestamp_seconds",
            "When the present configuration was taken up.",
        )?;
        loaded.set(clock::now().secs());
        let refused = IntCounterVec::new(
            Opts::new("portcullis_connections_refused_total", "Connections that were turned away, by reason."),
            &["reason"],
        )?;
        for reason in Refusal::ALL {
            refused.with_label_values(&[reason]);
        }
        registry.register(Box::new(refused.clone()))?;
        let help = "Idle and slow connections that were closed to make room for others.";
        let evicted = counter(&registry, "portcullis_connections_evicted_total", help)?;
        let gauges = Gauges::new(&registry)?;
        Ok(Self { registry, requests, seconds, lost, reloads, reloaded, loaded, refused, evicted, gauges })
    }

    /// Counts a reload of the configuration.
    pub fn reloaded(&self, success: bool) {
        self.reloads.with_label_values(&[if success { "success" } else { "failure" }]).inc();
        self.reloaded.set(i64::from(success));
        if success {
            self.loaded.set(clock::now().secs());
        }
    }

    /// Counts a connection that is turned away.
    pub fn refused(&self, reason: Refusal) {
        self.refused.with_label_values(&[reason.label()]).inc();
    }

    /// The counters of one route or endpoint, to be asked for once.
    pub fn route(&self, name: &str) -> Route {
        Route {
            name: name.into(),
            requests: self.requests.clone(),
            counters: std::array::from_fn(|_| OnceLock::new()),
            seconds: self.seconds.with_label_values(&[name]),
        }
    }

    /// Takes in which servers get requests, each by upstream and text.
    pub fn read_servers<'a>(&self, states: impl Iterator<Item = (&'a str, &'a str, bool)>) {
        // Servers that are no longer there are not to be told of.
        self.gauges.servers.reset();
        for (upstream, server, up) in states {
            self.gauges.servers.with_label_values(&[upstream, server]).set(i64::from(up));
        }
    }

    /// Takes in how old the fetched keys of each trusted issuer are.
    pub fn read_key_sets(&self, ages: &[(String, Duration)]) {
        // Issuers that are trusted no more are not to be told of.
        self.gauges.key_sets.reset();
        for (issuer, age) in ages {
            self.gauges.key_sets.with_label_values(&[issuer]).set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Everything as text, after `reading` is taken in.
    ///
    /// # Errors
    /// The encoder's.
    pub fn encode(&self, reading: Reading) -> Result<Vec<u8>, Error> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let connections = reading.connections;
        self.gauges.connections.set(signed(connections.open));
        self.evicted.inc_by(connections.evicted.saturating_sub(self.evicted.get()));
        for (reason, number) in reading.attempts {
            let counter = self.gauges.attempts.with_label_values(&[reason]);
            counter.inc_by(number.saturating_sub(counter.get()));
        }
        self.gauges.revocations.set(signed(reading.revocations));
        self.gauges.store_up.set(i64::from(reading.store_up));
        self.gauges.feed_silence_ms.set(i64::try_from(reading.feed_silence.as_millis()).unwrap_or(i64::MAX));
        self.gauges.stale.set(i64::from(reading.stale));
        self.gauges.signs.set(i64::from(reading.signs));
        self.gauges.store_writable.set(i64::from(reading.store_writable));
        for (operation, number) in STORE_OPERATIONS.into_iter().zip(reading.store_errors) {
            let counter = self.gauges.store_errors.with_label_values(&[operation]);
            counter.inc_by(number.saturating_sub(counter.get()));
        }
        self.lost.read(reading.lost);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// The counters of one route. Each series is made when it first counts; after that no lock is taken.
pub struct Route {
    name: Box<str>,
    requests: IntCounterVec,
    counters: [OnceLock<IntCounter>; METHODS.len() * CLASSES.len() * Outcome::ALL.len()],
    seconds: Histogram,
}

impl Route {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a request.
    pub fn count(&self, method: &str, status: u16, outcome: Outcome, took: Duration) {
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let index = (method * CLASSES.len() + class) * Outcome::ALL.len() + outcome as usize;
        if let (Some(counter), Some(method), Some(class), Some(outcome)) =
            (self.counters.get(index), METHODS.get(method), CLASSES.get(class), Outcome::ALL.get(outcome as usize))
        {
            counter.get_or_init(|| self.requests.with_label_values(&[&*self.name, *method, *class, *outcome])).inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class_and_outcome() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("/secret");
        route.count("GET", 200, Outcome::Forwarded, Duration::from_millis(2));
        route.count("GET", 204, Outcome::Forwarded, Duration::from_millis(2));
        route.count("BREW", 401, Outcome::Refused, Duration::ZERO);
        metrics.refused(Refusal::Tls);
        let reading = Reading {
            connections: Connections { open: 1, evicted: 2 },
            attempts: [("account", 4), ("address", 0), ("queue", 1)],
            revocations: 3,
            store_up: true,
            feed_silence: Duration::ZERO,
            stale: false,
            signs: true,
            store_writable: true,
            store_errors: [5, 6],
            lost: Lost { log: 7, access: 8, audit: 9 },
        };
        metrics.encode(reading).unwrap();
        let text = String::from_utf8(metrics.encode(reading).unwrap()).unwrap();
        for line in [
            r#"portcullis_requests_total{method="GET",outcome="forwarded",route="/secret",status="2xx"} 2"#,
            r#"portcullis_requests_total{method="other",outcome="refused",route="/secret",status="4xx"} 1"#,
            r#"portcullis_request_seconds_count{route="/secret"} 3"#,
            "portcullis_revocations 3",
            r#"portcullis_connections_refused_total{reason="tls"} 1"#,
            r#"portcullis_connections_refused_total{reason="connections"} 0"#,
            "portcullis_connections_evicted_total 2",
            r#"portcullis_attempts_refused_total{reason="account"} 4"#,
            r#"portcullis_attempts_refused_total{reason="address"} 0"#,
            "portcullis_store_writable 1",
            r#"portcullis_store_errors_total{operation="write"} 6"#,
            "portcullis_log_lines_lost_total 24",
            "portcullis_access_lines_lost_total 8",
            "portcullis_audit_lines_lost_total 9",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
