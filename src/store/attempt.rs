//! What is counted against those who guess passwords.

use crate::clock::UnixTime;
use crate::model::Household;
use crate::store::Key;

/// Someone tries a password, or to register.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The name exactly as it was typed, whether there is such an account or not; none for a registration.
    pub name: Option<&'a str>,
    /// From where.
    pub address: Household,
    /// Now.
    pub at: UnixTime,
}

/// What is counted against one account, one address, or one account at an address that is known to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that failed, and those whose outcome is not known yet.
    pub failures: u32,
    /// When the next one may be made, if there were too many.
    pub until: UnixTime,
    /// When all of this is forgotten.
    pub forget: UnixTime,
}

/// The counters that an attempt meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Whether the address is known to the account: then only their own counters count.
    pub is_known: bool,
    /// Of the account from elsewhere, or of the account at this address where it is known.
    pub account: Option<Tally>,
    /// The same, of a day.
    pub day: Option<Tally>,
    /// Of the address; where it is known to the account it does not count.
    pub address: Option<Tally>,
}

/// What counting an attempt has written, so that a success can take it back.
pub struct Receipt {
    pub(super) entries: Vec<Entry>,
    _held: Option<Box<dyn Send + Sync>>,
}

impl Receipt {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries, _held: None }
    }

    /// The same, with something that is dropped as soon as the outcome stands: with the receipt, or where that is taken
    /// back, once this is committed.
    pub fn holding(self, held: impl Send + Sync + 'static) -> Self {
        Self { _held: Some(Box::new(held)), ..self }
    }
}

/// One counter before and after.
#[derive(Debug)]
pub(super) struct Entry {
    pub place: Place,
    pub before: Option<Tally>,
    pub after: Tally,
}

/// What the key of an account is followed by for the counter of a day.
const DAY: u8 = b'd';

/// Where a counter stands: an empty part does not count.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub account: Vec<u8>,
    pub address: Vec<u8>,
}

impl Place {
    /// Of an account, at `address` alone or anywhere. Names may be long; their keys are not.
    pub fn account(name: &str, address: Option<Household>) -> Self {
        let address = address.map(|address| address.bytes().to_vec()).unwrap_or_default();
        Self { account: Key::subject(None, name).0.to_vec(), address }
    }

    /// The same, for the counter of a day.
    pub fn day(name: &str, address: Option<Household>) -> Self {
        let mut place = Self::account(name, address);
        place.account.push(DAY);
        place
    }

    /// Of an address.
    pub fn address(address: Household) -> Self {
        Self { account: Vec::new(), address: address.bytes().to_vec() }
    }
}
