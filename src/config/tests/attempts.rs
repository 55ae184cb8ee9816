//! `identity.attempts`.

use std::num::NonZeroU32;
use std::time::Duration;

use insta::assert_snapshot;

use super::super::{Attempts, Rate};
use super::{errors, load};

#[test]
fn how_often_passwords_may_be_guessed() {
    let of = |written: &str| load(&format!("identity: {{attempts: {{{written}}}}}")).identity.attempts;
    let rate = |count, minutes: u64| {
        Some(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(60 * minutes) })
    };
    for (written, per_account, per_address) in [
        ("", rate(5, 15), rate(50, 5)),
        ("per_account: 3/h", rate(3, 60), rate(50, 5)),
        ("per_account: off", None, rate(50, 5)),
        ("per_account: 'off', per_address: 'off'", None, None),
        ("per_address: '1000/${MISSING:-5}m'", rate(5, 15), rate(1000, 5)),
    ] {
        assert_eq!(of(written), Attempts { per_account, per_address }, "{written}");
    }
    assert_snapshot!(errors("identity: {attempts: {per_account: five}}"), @r"
    gateway.yaml:1: identity.attempts.per_account: `five` is not a rate
        Write such as 5/15m or 50/5m, or off
    ");
    assert_snapshot!(errors("identity: {attempts: {per_address: 0/5m}}"), @"gateway.yaml:1: identity.attempts.per_address: the count must be from 1 to 1000000");
    assert_snapshot!(errors("identity: {attempts: {per_address: 50}}"), @r"
    gateway.yaml:1:36: identity.attempts.per_address: expected a rate, such as `100/s`, found a number
        Write such as 5/15m or 50/5m, or off
    ");
    assert_snapshot!(errors("identity: {attempts: {per_user: 5/15m}}"), @r"
    gateway.yaml:1:23: identity.attempts.per_user: there is no key `per_user` here
        The keys here are: per_account, per_address
    ");
}
