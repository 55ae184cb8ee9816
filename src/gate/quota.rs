//! Quotas: how often one caller, or one address where nobody is known, may use a route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Pace, RateLimiter};

use crate::config::{Rate, Route};
use crate::message::Rejection;
use crate::model::Household;
use crate::sessions::Caller;

/// The quotas of all routes.
pub struct Quotas {
    routes: Vec<Option<Arc<Quota>>>,
}

impl Quotas {
    /// One for each route that has a limit. Where `previous` has that route with that rate, its counts go on.
    pub fn new(routes: &[Route], previous: Option<&Self>) -> Self {
        let quota = |route: &Route| {
            let rate = route.limits.requests?;
            let mut known = previous.into_iter().flat_map(|previous| previous.routes.iter().flatten());
            let known = known.find(|quota| quota.is_of(route, rate));
            Some(known.map_or_else(|| Arc::new(Quota::new(route, rate)), Arc::clone))
        };
        Self { routes: routes.iter().map(quota).collect() }
    }

    /// Counts a request against the quota of its route.
    ///
    /// # Errors
    /// `too_many_requests`.
    pub fn check(&self, route: usize, caller: Option<&Caller>, address: IpAddr) -> Result<(), Rejection> {
        match self.routes.get(route) {
            Some(Some(quota)) => quota.check(quota.key(caller, address)).map_err(Rejection::TooManyRequests),
            _ => Ok(()),
        }
    }

    /// Forgets who has been quiet long enough to have a full quota again. To be called now and then, on no worker.
    pub fn sweep(&self) {
        self.routes.iter().flatten().for_each(|quota| quota.sweep());
    }
}

type Limiter = RateLimiter<u64, DashMapStateStore<u64, RandomState>, MonotonicClock, NoOpMiddleware<Instant>>;

struct Quota {
    route: String,
    /// They tell routes of one host and path apart.
    methods: Vec<String>,
    rate: Rate,
    keys: RandomState,
    limiter: Limiter,
}

impl Quota {
    fn new(route: &Route, rate: Rate) -> Self {
        let step = (rate.per / rate.count.get()).max(Duration::from_nanos(1));
        let pace = Pace::with_period(step).unwrap_or(Pace::per_second(rate.count)).allow_burst(rate.count);
        let limiter = Limiter::dashmap_with_clock_and_hasher(pace, MonotonicClock, RandomState::new());
        Self { route: route.id.clone(), methods: route.methods.clone(), rate, keys: RandomState::new(), limiter }
    }

    fn is_of(&self, route: &Route, rate: Rate) -> bool {
        self.route == route.id && self.methods == route.methods && self.rate == rate
    }

    /// Stands for the caller, or else for the address. Random, so that nobody can choose whose quota he shares.
    fn key(&self, caller: Option<&Caller>, address: IpAddr) -> u64 {
        let Some(claims) = caller.map(Caller::claims) else {
            return self.keys.hash_one((false, Household::of(address)));
        };
        let issuer = claims.all.get("iss").and_then(serde_json::Value::as_str);
        self.keys.hash_one((true, issuer, &*claims.subject))
    }

    /// # Errors
    /// How long until the next one passes.
    fn check(&self, key: u64) -> Result<(), Duration> {
        self.limiter.check_key(&key).map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }

    fn sweep(&self) {
        let before = self.limiter.len();
        self.limiter.retain_recent();
        if self.limiter.len() < before / 2 {
            self.limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::{self, Config};

    fn config(routes: &[(&str, u32, Duration)]) -> Config {
        let list: String = routes.iter().map(|(path, _, _)| format!("  - {{path: {path}, upstream: app}}\n")).collect();
        let text = format!("upstreams: {{app: {{servers: [\"http://127.0.0.1:1\"]}}}}\nroutes:\n{list}");
        let mut config = config::parse(&text, "gateway.yaml".as_ref(), &|_| None).unwrap();
        for (route, (_, count, per)) in config.routes.iter_mut().zip(routes) {
            route.limits.requests = NonZeroU32::new(*count).map(|count| Rate { count, per: *per });
        }
        config
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn passes(quotas: &Quotas, route: usize, address: &str) -> bool {
        quotas.check(route, None, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn each_address_has_its_own() {
        let quotas = Quotas::new(&config(&[("/a", 2, HOUR), ("/b", 0, HOUR), ("/c", 1, HOUR)]).routes, None);
        for (route, address, expected) in [
            (0, "1.2.3.4", true),
            (0, "1.2.3.4", true),
            (0, "1.2.3.4", false),
            (0, "1.2.3.5", true),
            (0, "2001:db8::1", true),
            (0, "2001:db8::2", true),
            (0, "2001:db8::ffff:0:0:3", false),
            (0, "2001:db8:0:1::1", true),
            // The same bits as an IPv4 address.
            (0, "0:0:102:304::", true),
            (1, "1.2.3.4", true),
            (1, "1.2.3.4", true),
            (2, "1.2.3.4", true),
            (2, "1.2.3.4", false),
            (9, "1.2.3.4", true),
        ] {
            assert_eq!(passes(&quotas, route, address), expected, "{route} {address}");
        }
        let Err(Rejection::TooManyRequests(wait)) = quotas.check(0, None, "1.2.3.4".parse().unwrap()) else {
            panic!("passed");
        };
        assert!(wait <= HOUR / 2 && wait > HOUR / 2 - Duration::from_secs(60), "{wait:?}");
    }

    #[test]
    fn counts_outlive_a_reload_that_changes_nothing() {
        let before = Quotas::new(&config(&[("/a", 1, HOUR), ("/b", 1, HOUR)]).routes, None);
        assert!(passes(&before, 0, "1.2.3.4") && passes(&before, 1, "1.2.3.4"));
        let after = config(&[("/new", 1, HOUR), ("/b", 2, HOUR), ("/a", 1, HOUR)]);
        let after = Quotas::new(&after.routes, Some(&before));
        for (route, expected) in [(0, true), (1, true), (2, false)] {
            assert_eq!(passes(&after, route, "1.2.3.4"), expected, "{route}");
        }
    }

    #[test]
    fn comes_back_and_is_forgotten() {
        let quotas = Quotas::new(&config(&[("/a", 1, Duration::from_millis(20))]).routes, None);
        let quota = quotas.routes[0].as_ref().unwrap();
        assert!(passes(&quotas, 0, "1.2.3.4"));
        let begin = crate::clock::monotonic();
        while !passes(&quotas, 0, "1.2.3.4") {
            assert!(begin.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        while !quota.limiter.is_empty() {
            quotas.sweep();
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn extreme_rates_stand() {
        for (count, per) in [(u32::MAX, Duration::from_nanos(1)), (u32::MAX, HOUR * 24 * 365), (1, HOUR * 24 * 365)] {
            let quotas = Quotas::new(&config(&[("/a", count, per)]).routes, None);
            assert!(passes(&quotas, 0, "1.2.3.4"), "{count} in {per:?}");
        }
    }
}
