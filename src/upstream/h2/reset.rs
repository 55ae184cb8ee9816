//! Resets on one connection to a server. Servers end a connection on which streams are reset as fast as they are opened
//! (CVE-2023-44487), and with it the streams of all other clients: few streams are reset before the server can have
//! looked at them, the others stay open until it has.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::ResponseFuture;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::upstream::alarm::Millis;
use crate::upstream::h2::parts::StreamParts;
use crate::upstream::h2::unread::Body;
use crate::upstream::resets::YOUNG;

/// Unanswered streams that may be reset at once, and how soon, in milliseconds, one more may be. The h2 crate ends a
/// connection at twenty.
const BURST: u32 = 8;
const REFILL: Millis = 500;

/// Resets after which a connection gets no further streams. Servers count those of answered streams too: Netty 200 in 30
/// seconds, Envoy 500, nghttp2 1000.
const RESETS: u32 = 100;

/// How long an unanswered stream stays open at most, in milliseconds.
const HELD: Millis = 30_000;

/// Responses at most that are kept until the server ends their streams.
const ENDING: usize = 1000;

/// How often those are looked at.
pub const LOOK: Duration = Duration::from_millis(100);

/// Decides when a stream may be reset. One per connection.
#[derive(Default)]
pub struct Resets {
    /// Unanswered streams that were reset lately, and up to when the time has been taken off.
    spent: Cell<(u32, Millis)>,
    /// All resets so far.
    count: Cell<u32>,
    /// When the server last began a response.
    answered: Cell<Millis>,
    held: RefCell<Vec<Held>>,
    /// Responses that lack only the end of their stream, and since when.
    ending: RefCell<Vec<(RecvStream, Millis)>>,
    /// Set once the connection is closed.
    closed: Cell<bool>,
    added: Notify,
}

/// The way to send a request body that broke off, and what the server has not read of it.
type Upload = (SendStream<Bytes>, Rc<StreamParts>, Option<Body>);

/// A stream that no client waits for. Dropping it resets it.
struct Held {
    response: ResponseFuture,
    _upload: Option<Upload>,
    opened: Millis,
}

impl Resets {
    /// Notes that the server began a response.
    pub fn note_answer(&self, now: Millis) {
        self.answered.set(now);
    }

    /// Counts a reset; `true` when the connection has had enough of them.
    pub fn note(&self) -> bool {
        self.count.set(self.count.get().saturating_add(1));
        self.count.get() >= RESETS
    }

    /// Resets an unanswered stream now, or keeps it open until it may be reset: `true`, and it goes on counting as open.
    pub fn leave(&self, response: ResponseFuture, upload: Option<Upload>, (opened, now): (Millis, Millis)) -> bool {
        if self.closed.get() || self.may_reset(opened, now) {
            return false;
        }
        self.held.borrow_mut().push(Held { response, _upload: upload, opened });
        self.added.notify_one();
        true
    }

    /// Whether a stream that was opened then may be reset before its response; spends the budget where that is needed.
    fn may_reset(&self, opened: Millis, now: Millis) -> bool {
        let age = now.saturating_sub(opened);
        // The server answers, so it has looked at this stream by now.
        let seen = age >= YOUNG && self.answered.get() > opened;
        seen || age >= HELD || self.spend(now)
    }

    fn spend(&self, now: Millis) -> bool {
        let (spent, since) = self.spent.get();
        let refills = now.saturating_sub(since) / REFILL;
        let spent = spent.saturating_sub(u32::try_from(refills).unwrap_or(u32::MAX));
        let since = if spent == 0 { now } else { since + refills * REFILL };
        let free = spent < BURST;
        self.spent.set((spent + u32::from(free), since));
        free
    }

    /// Keeps the stream of a whole response until the server has ended it, rather than to reset it.
    pub fn await_end(&self, stream: RecvStream, now: Millis) {
        let mut ending = self.ending.borrow_mut();
        if !self.closed.get() && ending.len() < ENDING {
            ending.push((stream, now));
            self.added.notify_one();
        }
    }

    /// Waits until there is a held stream.
    pub async fn wait_for_held(&self) {
        while self.held.borrow().is_empty() && self.ending.borrow().is_empty() {
            self.added.notified().await;
        }
    }

    /// Drops held streams that are answered or may be reset; returns how many.
    pub fn release(&self, now: Millis) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let may_end = |since: Millis| now.saturating_sub(since) < YOUNG;
        self.ending
            .borrow_mut()
            .retain_mut(|(stream, since)| stream.poll_data(&mut cx).is_pending() && may_end(*since));
        let mut held = self.held.borrow_mut();
        let before = held.len();
        held.retain_mut(|held| {
            // An interim response says that the server has looked at it, too.
            if matches!(held.response.poll_informational(&mut cx), Poll::Ready(Some(Ok(_)))) {
                self.answered.set(now);
                return false;
            }
            let answer = Pin::new(&mut held.response).poll(&mut cx);
            if matches!(answer, Poll::Ready(Ok(_))) {
                self.answered.set(now);
            }
            answer.is_pending() && !(now.saturating_sub(held.opened) >= YOUNG && self.may_reset(held.opened, now))
        });
        before - held.len()
    }

    /// The connection is closed.
    pub fn close(&self) {
        self.closed.set(true);
        self.held.borrow_mut().clear();
        self.ending.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_unanswered_streams_are_reset_at_once() {
        let resets = Resets::default();
        assert_eq!((0..100).filter(|_| resets.may_reset(1000, 1000)).count(), 8);
        assert_eq!((0..100).filter(|_| resets.may_reset(2000, 2000)).count(), 2, "two a second");
        assert!(!resets.may_reset(1000, 2000), "no answer since");
        resets.note_answer(1500);
        assert!((0..100).all(|_| resets.may_reset(1000, 2000)), "the server has seen it");
        assert!(!resets.may_reset(1001, 2000), "too young");
        assert!(resets.may_reset(1000, 31_000), "not open without end");
    }

    #[test]
    fn budget_is_never_more_than_full() {
        let resets = Resets::default();
        for now in [1, 1_000_000] {
            assert_eq!((0..100).filter(|_| resets.spend(now)).count(), 8);
        }
    }

    #[test]
    fn connection_has_enough_after_a_hundred() {
        let resets = Resets::default();
        assert_eq!((0..150).position(|_| resets.note()), Some(99));
    }
}
