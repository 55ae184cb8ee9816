//! Servers that keep failing: put out, tried again, and never all of them.

use std::sync::Barrier;

use super::*;

#[test]
fn five_failures_in_a_row_put_a_server_out() {
    for kind in ALL {
        let scene = Scene::of(kind, &[1, 1, 1]);
        for _ in 0..10 {
            scene.fail(1, 4);
            scene.praise(1);
        }
        assert!(!scene.is_out(1), "{kind:?}: a success between");
        scene.fail(1, 5);
        assert!(scene.is_out(1), "{kind:?}");
        scene.pass(999);
        assert!((0..100).all(|key| scene.next_for(&format!("key{key}")) != 1), "{kind:?}");
        scene.praise(1);
        scene.fail(1, 10);
        assert!(
            scene.is_out(1) && scene.balance.servers[1].ejection.due() == 1000,
            "{kind:?}: late answers say nothing"
        );
    }
}

/// Waits until `server` has a trial, to the millisecond.
fn wait_for_trial(scene: &Scene, server: usize) -> Millis {
    let begun = scene.time.get();
    let due = scene.balance.servers[server].ejection.due();
    scene.time.set(due - 1);
    assert!((0..9).all(|_| scene.next() != server), "too early");
    scene.time.set(due);
    assert!((0..9).any(|_| scene.next() == server), "too late");
    due - begun
}

#[test]
fn the_time_out_doubles_up_to_five_minutes() {
    let scene = Scene::of(TURNS, &[1, 1]);
    scene.fail(0, 5);
    let times: Vec<_> = (0..12)
        .map(|_| {
            let time = wait_for_trial(&scene, 0);
            scene.fail(0, 1);
            time / 1000
        })
        .collect();
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn one_request_is_the_trial() {
    for kind in [TURNS, LEAST, DICE] {
        let scene = Scene::of(kind, &[1, 1]);
        scene.fail(0, 5);
        scene.pass(1000);
        assert_eq!(scene.count(100)[0], 1, "{kind:?}");
        scene.pass(999);
        assert_eq!(scene.count(100)[0], 0, "{kind:?}: nothing was heard of the trial yet");
        scene.pass(1);
        assert_eq!(scene.count(100)[0], 1, "{kind:?}: nothing will be heard of it");
        scene.praise(0);
        assert!(!scene.is_out(0) && scene.count(100)[0] > 20, "{kind:?}");
        scene.fail(0, 4);
        assert!(!scene.is_out(0), "{kind:?}: it begins with a clean slate");
    }
    let scene = Scene::of(RING, &[1, 1]);
    let own = (0..).map(|n| format!("key{n}")).find(|key| scene.next_for(key) == 0).unwrap();
    scene.fail(0, 5);
    scene.pass(1000);
    let chosen: Vec<_> = (0..3).map(|_| scene.next_for(&own)).collect();
    assert_eq!(chosen, [0, 1, 1]);
}

#[test]
fn a_trial_is_one_request_of_all_threads() {
    let scene = Scene::of(TURNS, &[1, 1]);
    scene.fail(0, 5);
    let (balance, at, barrier) = (&scene.balance, scene.now() + Duration::from_secs(1), Barrier::new(4));
    let trials = std::thread::scope(|scope| {
        let work = || {
            barrier.wait();
            (0..200).filter(|_| balance.next_at(None, &[], || at) == Choice::Server(0)).count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(trials, 1);
}

#[test]
fn a_server_that_stayed_in_begins_anew() {
    for (stay, next_time) in [(29_999, 2000), (30_000, 1000)] {
        let scene = Scene::of(TURNS, &[1, 1]);
        scene.fail(0, 5);
        wait_for_trial(&scene, 0);
        scene.praise(0);
        scene.pass(stay);
        scene.fail(0, 5);
        assert_eq!(wait_for_trial(&scene, 0), next_time, "after {stay} ms");
    }
    // One that was out for 64 s has to stay in for as long.
    for (stay, next_time) in [(63_999, 128_000), (64_000, 1000)] {
        let scene = Scene::of(TURNS, &[1, 1]);
        scene.fail(0, 5);
        for _ in 0..6 {
            wait_for_trial(&scene, 0);
            scene.fail(0, 1);
        }
        assert_eq!(wait_for_trial(&scene, 0), 64_000);
        scene.praise(0);
        scene.pass(stay);
        scene.fail(0, 5);
        assert_eq!(wait_for_trial(&scene, 0), next_time, "after {stay} ms");
    }
}

#[test]
fn the_last_stays_until_another_has_had_its_rest() {
    let scene = Scene::new(&checked(weighted(TURNS, &[1, 1, 1, 0])));
    scene.set_down(2, true);
    scene.fail(1, 5);
    scene.fail(0, 500);
    assert_eq!((scene.is_out(0), scene.is_out(1)), (false, true), "nothing else is left");
    assert_eq!(scene.next(), 0);
    scene.pass(1000);
    scene.fail(0, 5);
    assert_eq!((scene.is_out(0), scene.is_out(1)), (true, false), "the other one may have recovered");
    scene.fail(1, 500);
    assert_eq!(scene.next(), 1);
    // The one that is left goes down: one that only failed is better than none.
    scene.set_down(1, true);
    assert_eq!(scene.choose("", &[]), Choice::LastResort(0));
    assert_eq!(scene.choose("", &[0]), Choice::Exhausted);
    scene.balance.redeem(0);
    assert_eq!((scene.is_out(0), scene.next()), (false, 0), "it worked");
}

#[test]
fn never_all_are_out_whatever_threads_report() {
    for _ in 0..200 {
        let scene = Scene::of(TURNS, &[1, 1, 1]);
        let (balance, at, barrier) = (&scene.balance, scene.now(), Barrier::new(3));
        std::thread::scope(|scope| {
            for server in 0..3 {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    (0..5).for_each(|_| balance.report_at(server, Outcome::Failed, || at));
                });
            }
        });
        assert_eq!((0..3).filter(|server| scene.is_out(*server)).count(), 2);
    }
}
