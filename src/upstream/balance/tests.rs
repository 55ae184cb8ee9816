//! The balance, on a clock of its own.

mod ejection;

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{
    HashKey, Health, HostPolicy, Protocol, ServerAddress, UpstreamServer, UpstreamTimeouts, UpstreamTls,
};

const TURNS: config::Balance = config::Balance::RoundRobin;
const LEAST: config::Balance = config::Balance::LeastConnections;
const DICE: config::Balance = config::Balance::Random;
const RING: config::Balance = config::Balance::Consistent(HashKey::Subject);
const ALL: [config::Balance; 4] = [TURNS, LEAST, DICE, RING];

fn server(name: &str, weight: usize) -> UpstreamServer {
    UpstreamServer { address: ServerAddress::Tcp { host: name.into(), port: 80 }, tls: false, weight }
}

fn upstream(balance: config::Balance, servers: Vec<UpstreamServer>) -> config::Upstream {
    config::Upstream {
        name: "app".into(),
        servers,
        balance,
        health: None,
        timeouts: UpstreamTimeouts { connect: Duration::ZERO, response: Duration::ZERO, idle: Duration::ZERO },
        protocol: Protocol::Http1,
        host: HostPolicy::Keep,
        tls: UpstreamTls::default(),
        max_connections: None,
    }
}

fn weighted(balance: config::Balance, weights: &[usize]) -> config::Upstream {
    upstream(balance, weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect())
}

fn health(path: &str) -> Health {
    Health { path: Some(path.into()), every: Duration::from_secs(5), up: 2, down: 3 }
}

fn checked(mut upstream: config::Upstream) -> config::Upstream {
    upstream.health = Some(health("/"));
    upstream
}

/// A balance and the time.
struct Scene {
    balance: Balance,
    time: Cell<Millis>,
}

impl Scene {
    fn new(upstream: &config::Upstream) -> Self {
        Self { balance: Balance::new(upstream, None).unwrap(), time: Cell::new(0) }
    }

    fn of(balance: config::Balance, weights: &[usize]) -> Self {
        Self::new(&weighted(balance, weights))
    }

    fn now(&self) -> Instant {
        self.balance.start + Duration::from_millis(self.time.get())
    }

    fn pass(&self, time: Millis) {
        self.time.set(self.time.get() + time);
    }

    fn choose(&self, key: &str, tried: &[usize]) -> Choice {
        self.balance.next_at(Some(key.as_bytes()), tried, || self.now())
    }

    #[track_caller]
    fn next(&self) -> usize {
        self.next_for("")
    }

    #[track_caller]
    fn next_for(&self, key: &str) -> usize {
        match self.choose(key, &[]) {
            Choice::Server(index) => index,
            none => panic!("{none:?}"),
        }
    }

    fn fail(&self, server: usize, times: u32) {
        (0..times).for_each(|_| self.balance.report_at(server, Outcome::Failed, || self.now()));
    }

    fn praise(&self, server: usize) {
        self.balance.report_at(server, Outcome::Good, || self.now());
    }

    fn set_down(&self, server: usize, down: bool) {
        let (_, verdict) = self.balance.verdicts().nth(server).unwrap();
        while verdict.is_down() != down {
            verdict.hear(!down, &health("/"));
        }
    }

    fn is_out(&self, server: usize) -> bool {
        self.balance.states().nth(server).unwrap().2
    }

    /// How often each server is next.
    fn count(&self, rounds: usize) -> Vec<usize> {
        let mut count = vec![0; self.balance.servers.len()];
        (0..rounds).for_each(|_| count[self.next()] += 1);
        count
    }
}

#[test]
fn turns_follow_the_weights() {
    assert_eq!(Scene::of(TURNS, &[3, 0, 1]).count(400), [300, 0, 100]);
    assert_eq!(Scene::of(TURNS, &[256, 128]).count(300), [200, 100], "by proportion, not in long runs");
    assert_eq!(Scene::of(LEAST, &[3, 0, 1]).count(400), [300, 0, 100], "with nothing in flight");
    let dice = Scene::of(DICE, &[3, 0, 1]).count(4000);
    assert!(dice[1] == 0 && (2800..3200).contains(&dice[0]), "{dice:?}");
    let ring = Scene::of(RING, &[3, 0, 1]);
    let of_first = (0..4000).filter(|user| ring.next_for(&format!("user{user}")) == 0).count();
    assert!((2700..3300).contains(&of_first), "{of_first}");
}

#[test]
fn no_server_is_tried_twice() {
    for kind in ALL {
        let scene = Scene::of(kind, &[1, 1, 0, 5]);
        let mut tried = Vec::new();
        while let Choice::Server(index) = scene.choose("key", &tried) {
            assert!(!tried.contains(&index) && index != 2, "{kind:?}: {index} after {tried:?}");
            tried.push(index);
        }
        assert_eq!(tried.len(), 3, "{kind:?}");
        assert_eq!(scene.choose("key", &tried), Choice::Exhausted);
        for weights in [&[1][..], &[0, 1]] {
            let (scene, only) = (Scene::of(kind, weights), weights.len() - 1);
            assert_eq!(scene.choose("key", &[]), Choice::Server(only), "{kind:?}");
            assert_eq!(scene.choose("key", &[only]), Choice::Exhausted, "{kind:?}");
        }
    }
}

#[test]
fn the_only_server_that_is_up_is_found_among_many() {
    let mut weights = vec![256; 300];
    weights[117] = 1;
    for kind in ALL {
        let scene = Scene::new(&checked(weighted(kind, &weights)));
        (0..300).filter(|index| *index != 117).for_each(|index| scene.set_down(index, true));
        for key in 0..200 {
            assert_eq!(scene.choose(&format!("key{key}"), &[]), Choice::Server(117), "{kind:?}");
        }
        scene.set_down(117, true);
        let retry_after = Duration::from_secs(10);
        assert_eq!(scene.choose("key", &[]), Choice::NoneHealthy { retry_after }, "{kind:?}");
        scene.set_down(200, false);
        assert_eq!(scene.choose("key", &[]), Choice::Server(200), "{kind:?}");
        assert_eq!(scene.choose("key", &[200]), Choice::Exhausted, "{kind:?}");
    }
}

#[test]
fn a_single_server_is_never_put_out_but_may_be_down() {
    let scene = Scene::new(&checked(weighted(TURNS, &[1])));
    scene.fail(0, 100);
    assert_eq!((scene.next(), scene.is_out(0)), (0, false));
    scene.set_down(0, true);
    assert!(matches!(scene.choose("", &[]), Choice::NoneHealthy { .. }));
    assert_eq!(scene.balance.states().collect::<Vec<_>>(), [("http://s0", false, false)]);
}

#[test]
fn a_server_that_is_left_alone_by_a_reload_is_in() {
    let scene = Scene::of(TURNS, &[1, 1]);
    scene.fail(0, 5);
    let after = Balance::new(&weighted(TURNS, &[1]), Some(&scene.balance)).unwrap();
    assert_eq!((after.next(None, &[]), after.states().next()), (Choice::Server(0), Some(("http://s0", true, false))));
}

#[test]
fn a_ring_moves_only_the_keys_of_the_lost_server() {
    let keys: Vec<_> = (0..2000).map(|user| format!("user{user}")).collect();
    let names = ["a", "b", "c", "d"];
    let scene = Scene::new(&upstream(RING, names.map(|name| server(name, 1)).into()));
    let before: BTreeMap<_, _> = keys.iter().map(|key| (key, names[scene.next_for(key)])).collect();
    for name in names {
        let share = before.values().filter(|of| **of == name).count();
        assert!((350..650).contains(&share), "{name} has {share}");
    }
    assert!(keys.iter().all(|key| names[scene.next_for(key)] == before[key]));
    let moves_right = |key: &String, now: &str| if before[key] == "b" { now != "b" } else { now == before[key] };
    scene.fail(1, 5);
    assert!(keys.iter().all(|key| moves_right(key, names[scene.next_for(key)])), "passed over");
    let left = ["d", "c", "a"];
    let without = Scene::new(&upstream(RING, left.map(|name| server(name, 1)).into()));
    assert!(
        keys.iter().all(|key| moves_right(key, left[without.next_for(key)])),
        "struck off the list, in another order"
    );
}

#[test]
fn the_ring_is_the_same_in_every_version() {
    let scene = Scene::of(RING, &[1, 1, 2]);
    let chosen = ["alice", "bob", "carol", "dave", "erin"].map(|key| scene.next_for(key));
    assert_eq!(chosen, [1, 0, 2, 1, 0]);
}

#[test]
fn least_connections_counts_until_the_guard_is_dropped() {
    let scene = Scene::of(LEAST, &[2, 1]);
    let mut held: Vec<_> = (0..6)
        .map(|_| {
            let index = scene.next();
            (index, scene.balance.enter(index).unwrap())
        })
        .collect();
    assert_eq!(held.iter().filter(|(index, _)| *index == 0).count(), 4);
    held.retain(|(index, _)| *index == 0);
    assert_eq!((scene.next(), scene.next()), (1, 1), "its two requests are over");
    drop(held);
    assert!(scene.balance.servers.iter().all(|server| server.in_flight.load(Ordering::Relaxed) == 0));
    for kind in [TURNS, DICE, RING] {
        assert!(Scene::of(kind, &[1, 1]).balance.enter(0).is_none());
    }
}

#[test]
fn a_server_that_hangs_gets_its_trial_by_least_connections_too() {
    let scene = Scene::of(LEAST, &[1, 1]);
    let _stuck: Vec<_> = (0..50).map(|_| scene.balance.enter(0)).collect();
    scene.fail(0, 5);
    scene.pass(1000);
    assert_eq!((scene.next(), scene.next()), (0, 1));
}

#[test]
fn a_reload_forgets_nothing() {
    let before = Scene::new(&checked(upstream(LEAST, vec![server("a", 1), server("b", 1), server("c", 1)])));
    before.fail(0, 5);
    before.set_down(1, true);
    let _held = before.balance.enter(2);
    let after = checked(upstream(LEAST, vec![server("x", 1), server("c", 2), server("b", 7), server("a", 1)]));
    let after = Balance::new(&after, Some(&before.balance)).unwrap();
    let states: Vec<_> = after.states().collect();
    let expected = [("x", true, false), ("c", true, false), ("b", false, false), ("a", true, true)];
    assert_eq!(states, expected.map(|(name, up, out)| (&*format!("http://{name}").leak(), up, out)));
    let counts: Vec<_> = after.servers.iter().map(|server| server.in_flight.load(Ordering::Relaxed)).collect();
    assert_eq!(counts, [0, 1, 0, 0]);
    // What requests that began before it still find out holds afterwards too.
    before.set_down(1, false);
    before.fail(2, 5);
    assert_eq!(after.states().nth(1), Some(("http://c", true, true)));
}

#[test]
fn a_verdict_on_another_question_is_forgotten() {
    let before = checked(weighted(TURNS, &[1, 1]));
    let scene = Scene::new(&before);
    scene.set_down(0, true);
    let is_down = |after: &config::Upstream| {
        let after = Balance::new(after, Some(&scene.balance)).unwrap();
        !after.states().next().unwrap().1
    };
    assert!(is_down(&before));
    let often = Health { every: Duration::from_millis(1), up: 9, down: 9, ..health("/") };
    assert!(is_down(&config::Upstream { health: Some(often), ..before.clone() }), "still the same question");
    assert!(!is_down(&config::Upstream { health: Some(health("/other")), ..before.clone() }));
    assert!(!is_down(&config::Upstream { health: None, ..before.clone() }), "nobody would bring it back");
    let mut tls = before.clone();
    tls.servers[0].tls = true;
    assert!(!is_down(&tls), "another server");
}

#[derive(Clone, Debug)]
enum Step {
    Choose(u8, Vec<usize>),
    Report(usize, Outcome),
    Check(usize, bool),
    Wait(Millis),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![3 => Just(Outcome::Failed), 1 => Just(Outcome::Good)];
    prop_oneof![
        4 => (any::<u8>(), prop::collection::vec(0_usize..5, 0..4)).prop_map(|(key, tried)| Step::Choose(key, tried)),
        12 => (0_usize..5, outcome).prop_map(|(server, outcome)| Step::Report(server, outcome)),
        1 => (0_usize..5, any::<bool>()).prop_map(|(server, down)| Step::Check(server, down)),
        2 => (0_u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn always_one_that_may_be_chosen(
        kind in prop::sample::select(ALL.to_vec()),
        weights in prop::collection::vec(0_usize..4, 2..5),
        steps in prop::collection::vec(step(), 0..300),
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let scene = Scene::new(&checked(weighted(kind, &weights)));
        let mut down = vec![false; weights.len()];
        for step in steps {
            match step {
                Step::Choose(key, tried) => {
                    let usable: Vec<_> = (0..weights.len()).filter(|index| weights[*index] > 0 && !down[*index]).collect();
                    match scene.choose(&key.to_string(), &tried) {
                        Choice::Server(index) => prop_assert!(usable.contains(&index) && !tried.contains(&index)),
                        Choice::LastResort(index) => {
                            prop_assert!(usable.contains(&index) && !tried.contains(&index) && scene.is_out(index));
                            prop_assert!(!usable.iter().any(|one| !tried.contains(one) && !scene.is_out(*one)));
                        }
                        Choice::NoneHealthy { .. } => prop_assert!(usable.is_empty() && tried.is_empty()),
                        Choice::Exhausted => {
                            let left = usable.iter().any(|index| !tried.contains(index));
                            prop_assert!(!tried.is_empty() && !left);
                        }
                    }
                }
                Step::Report(server, outcome) => scene.balance.report_at(server, outcome, || scene.now()),
                Step::Check(server, to) => {
                    if let Some(down) = down.get_mut(server) {
                        scene.set_down(server, to);
                        *down = to;
                    }
                }
                Step::Wait(time) => scene.pass(time),
            }
            let all_out = (0..weights.len()).filter(|index| weights[*index] > 0).all(|index| scene.is_out(index));
            prop_assert!(!all_out, "one is always in");
        }
    }

    #[test]
    fn least_connections_finds_the_least(
        servers in prop::collection::vec((0_usize..5, 0_usize..9), 2..6),
        rounds in 1..8,
    ) {
        let weights: Vec<_> = servers.iter().map(|(weight, _)| *weight).collect();
        prop_assume!(weights.iter().filter(|weight| **weight > 0).count() > 1);
        let scene = Scene::of(LEAST, &weights);
        let _held: Vec<_> = servers.iter().enumerate()
            .flat_map(|(index, (_, load))| std::iter::repeat_n(index, *load))
            .map(|index| scene.balance.enter(index))
            .collect();
        let least = servers.iter().filter(|(weight, _)| *weight > 0).map(|(weight, load)| *load as f64 / *weight as f64);
        let least = least.fold(f64::INFINITY, f64::min);
        for _ in 0..rounds {
            let (weight, load) = servers[scene.next()];
            prop_assert!(load as f64 / weight as f64 <= least + 1e-9);
        }
    }
}
