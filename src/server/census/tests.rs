//! Limits, and which connection gives way.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

fn census(workers: usize, connections: usize, per_address: usize) -> Arc<Census> {
    Census::new(workers, &Limits { connections, per_address, header_bytes: 0, body: 0 })
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Polls once.
fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Enters; `None` where that has to wait.
fn enter(census: &Arc<Census>, address: Option<IpAddr>) -> Option<Result<Ticket, Full>> {
    poll(pin!(census.enter(address)))
}

fn share(network: usize, prefix: usize) -> Share {
    Share { network, prefix }
}

#[test]
fn an_address_has_its_share() {
    for (first, other, same) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("0.0.0.0", "::", false),
    ] {
        let census = census(1, 10, 1);
        let ticket = enter(&census, ip(first)).unwrap().ok().unwrap();
        let outcome = enter(&census, ip(other)).unwrap().map(drop);
        assert_eq!(outcome, if same { Err(Full::Address) } else { Ok(()) }, "{first} {other}");
        assert_eq!(census.open(), 1);
        drop(ticket);
        assert!(enter(&census, ip(other)).unwrap().is_ok() && enter(&census, None).unwrap().is_ok());
        assert_eq!(census.open(), 0);
        assert!(census.holders.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}

#[test]
fn no_share_no_limit_until_it_is_given_one() {
    let census = census(1, 10, 0);
    let tickets: Vec<_> = (0..5).map(|_| enter(&census, ip("192.0.2.1")).unwrap().ok().unwrap()).collect();
    census.set_limits(&Limits { connections: 10, per_address: 5, header_bytes: 0, body: 0 });
    assert_eq!(enter(&census, ip("192.0.2.1")).unwrap().map(drop), Err(Full::Address));
    assert!(enter(&census, None).unwrap().is_ok());
    drop(tickets);
    assert!(enter(&census, ip("192.0.2.1")).unwrap().is_ok());
}

#[test]
fn shares_are_counted_by_prefix_and_network() {
    let census = census(1, 100, 0);
    let addresses = ["192.0.2.1", "192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8:0:1::1", "2001:db8:0:2::1"];
    let _tickets: Vec<_> = addresses.iter().map(|text| enter(&census, ip(text)).unwrap().ok().unwrap()).collect();
    for (address, expected) in [
        ("192.0.2.1", share(3, 2)),
        ("192.0.2.9", share(3, 1)),
        ("192.0.2.77", share(3, 0)),
        ("198.51.100.1", share(1, 1)),
        ("2001:db8:0:1::5", share(2, 1)),
        ("2001:db8:1::1", share(0, 0)),
    ] {
        assert_eq!(census.share(address.parse().unwrap()), expected, "{address}");
    }
}

#[tokio::test]
async fn a_newcomer_waits_until_the_largest_holder_gives_way() {
    let census = census(2, 3, 0);
    let mut tickets: Vec<_> = (0..3).map(|_| enter(&census, ip("192.0.2.1")).unwrap().ok().unwrap()).collect();
    assert_eq!(census.demand(), 0);
    let mut newcomer = Box::pin(census.enter(ip("198.51.100.1")));
    assert!(poll(newcomer.as_mut()).is_none());
    assert_eq!(census.demand(), 1);
    // The other worker has told of a larger holder: it closes one.
    assert_eq!(census.settle(1, [share(3, 3), share(3, 3)]), 1);
    assert_eq!((census.demand(), census.settle(0, [share(3, 3)]), census.counts().evicted), (0, 0, 1));
    assert!(poll(newcomer.as_mut()).is_none());
    tickets.pop();
    let admitted = newcomer.await.ok().unwrap();
    assert_eq!((census.open(), census.demand()), (3, 0));
    assert_eq!(admitted.holder(), ip("198.51.100.1"));
}

#[test]
fn a_smaller_holder_is_spared() {
    let census = census(2, 2, 0);
    let _tickets: Vec<_> = (0..2).map(|_| enter(&census, None).unwrap().ok().unwrap()).collect();
    let mut newcomer = Box::pin(census.enter(None));
    assert!(poll(newcomer.as_mut()).is_none());
    // Nothing of its own may give way, or only a smaller holder's than the other worker has told of.
    assert_eq!(census.settle(0, []), 0);
    let mut offers = census.offers();
    offers[1] = Some(share(9, 9));
    drop(offers);
    assert_eq!(census.settle(0, [share(2, 1)]), 0);
    assert_eq!(census.settle(1, [share(9, 9), share(9, 9)]), 1);
}

#[test]
fn the_line_is_bounded_and_shared() {
    let census = census(1, 1, 0);
    let _ticket = enter(&census, None).unwrap().ok().unwrap();
    let mut line = Vec::new();
    for number in 0..WAITING_SHARE {
        let mut newcomer = Box::pin(census.enter(ip(&format!("192.0.2.{number}"))));
        assert!(poll(newcomer.as_mut()).is_none());
        line.push(newcomer);
    }
    assert_eq!(enter(&census, ip("192.0.2.200")).unwrap().map(drop), Err(Full::Everywhere));
    assert!(enter(&census, ip("198.51.100.1")).is_none(), "another network waits");
    for number in 0..WAITING_MAX - WAITING_SHARE {
        let mut newcomer = Box::pin(census.enter(ip(&format!("10.{number}.0.1"))));
        assert!(poll(newcomer.as_mut()).is_none());
        line.push(newcomer);
    }
    assert_eq!(enter(&census, ip("198.51.100.1")).unwrap().map(drop), Err(Full::Everywhere));
    assert_eq!(census.demand(), WAITING_MAX);
    drop(line);
    assert_eq!((census.demand(), census.open()), (0, 1));
}

#[test]
fn connections_beyond_a_lowered_limit_are_asked_for() {
    let census = census(1, 10, 0);
    let _tickets: Vec<_> = (0..8).map(|_| enter(&census, ip("192.0.2.1")).unwrap().ok().unwrap()).collect();
    census.set_limits(&Limits { connections: 3, per_address: 0, header_bytes: 0, body: 0 });
    assert_eq!(census.demand(), 5);
    assert_eq!(census.settle(0, vec![share(8, 8); 4]), 4);
    assert_eq!(census.settle(7, vec![share(8, 8); 4]), 1);
}
