//! The audit: one line for each event in the life of an account, a session or a token. Who, from where, and how it ended;
//! never a token, a password or a hash.
//!
//! It is no chatter: `log.level` does not silence it. A login neither waits for it nor fails for want of it, or whoever
//! fills a disk would lock everyone out; what could not be written is told in the log and counted.

mod sink;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::telemetry::access::json_string;
use crate::telemetry::log::Shape;
use crate::telemetry::redact::redacted;

pub use sink::{Error, Sink, check};

/// Lines that may wait for the writer.
const WAITING: usize = 1024;

/// The longest value, in characters: names that were tried may be anything.
const LONGEST: usize = 256;

/// How long the end of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What happened, or was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody registers.
    Registration,
    /// Somebody logs in.
    Login,
    /// A refresh token is used.
    Refresh,
    /// One is used that has a used successor, so that its session ends.
    Reuse,
    /// One access token is given back.
    LogoutAccess,
    /// One refresh token is given back.
    LogoutRefresh,
    /// A session is ended by one of its tokens.
    Logout,
    /// All sessions of an account are ended by one of its tokens.
    LogoutAll,
    /// A user ends one of his sessions by its id.
    SessionEnd,
    /// A login ends a session, because the account has as many as it may have.
    SessionEvicted,
    /// A user changes his password.
    Password,
    /// An administrator deletes all other accounts.
    UsersDelete,
    /// The command line makes an account.
    UserAdd,
    /// It deletes one.
    UserDelete,
    /// It gives one other roles.
    UserRoles,
    /// It gives one another password.
    UserPassword,
    /// It bars one.
    UserDisable,
    /// It lets one in again.
    UserEnable,
    /// It is about to take over the accounts and revoked tokens of another application, a batch after the other.
    ImportBegin,
    /// It has done that, or not to the end: the line says how many.
    Import,
    /// It forgets the failures that are counted against a name or an address.
    UserUnlock,
    /// It makes a new key, which signs now or soon: which one, the line names.
    KeyRotate,
    /// It revokes a key.
    KeyRevoke,
    /// It revokes a token, a session, or all tokens of a user: which one, the line names.
    Revocation,
}

impl Event {
    /// Its name in a line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Reuse => "reuse",
            Self::LogoutAccess => "logout_access",
            Self::LogoutRefresh => "logout_refresh",
            Self::Logout => "logout",
            Self::LogoutAll => "logout_all",
            Self::SessionEnd => "session_end",
            Self::SessionEvicted => "session.evicted",
            Self::Password => "password",
            Self::UsersDelete => "users_delete",
            Self::UserAdd => "user_add",
            Self::UserDelete => "user_delete",
            Self::UserRoles => "user_roles",
            Self::UserPassword => "user_password",
            Self::UserDisable => "user_disable",
            Self::UserEnable => "user_enable",
            Self::UserUnlock => "user_unlock",
            Self::ImportBegin => "import_begin",
            Self::Import => "import",
            Self::KeyRotate => "key_rotate",
            Self::KeyRevoke => "key_revoke",
            Self::Revocation => "revocation",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused; the code of the refusal.
    Failure(&'static str),
    /// The client left before it was answered: it may have been done.
    Unknown,
}

/// Who did it.
#[derive(Clone, Copy, Debug)]
pub enum Actor<'a> {
    /// A client.
    Client {
        /// Where it is.
        address: IpAddr,
        /// What it says it is.
        user_agent: Option<&'a str>,
        /// Of its request, as in the access log.
        request_id: &'a str,
    },
    /// A command, started by this user of the system.
    Command(&'a str),
}

/// Whom it concerns, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The account's name, or the one that was tried.
    pub user: Option<String>,
    /// `sid`.
    pub session: Option<String>,
    /// `jti`.
    pub token: Option<String>,
    /// How many things were taken over, and of what kinds.
    pub taken: Option<String>,
    /// What else there is to say, by its field's name.
    pub more: Option<(&'static str, String)>,
}

/// One line.
pub struct Line {
    time: UnixTime,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    /// Puts it together.
    pub fn new(time: UnixTime, event: Event, outcome: Outcome, actor: Actor<'_>, about: &About) -> Self {
        let (outcome, reason) = match outcome {
            Outcome::Success => ("success", None),
            Outcome::Failure(code) => ("failure", Some(code)),
            Outcome::Unknown => ("unknown", None),
        };
        let (kind, system_user, client, user_agent, request_id) = match actor {
            Actor::Client { address, user_agent, request_id } => {
                ("client", None, Some(address.to_string()), user_agent, Some(request_id))
            }
            Actor::Command(user) => ("cli", Some(user), None, None, None),
        };
        let (more, detail) = about.more.as_ref().map_or(("", None), |(name, value)| (*name, Some(&**value)));
        let fields = [
            ("event", Some(event.name())),
            ("outcome", Some(outcome)),
            ("reason", reason),
            ("actor", Some(kind)),
            ("system_user", system_user),
            ("user", about.user.as_deref()),
            (more, detail),
            ("taken", about.taken.as_deref()),
            ("sid", about.session.as_deref()),
            ("jti", about.token.as_deref()),
            ("client", client.as_deref()),
            ("user_agent", user_agent),
            ("request_id", request_id),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, bounded(value?).into_owned())));
        Self { time, fields: fields.collect() }
    }

    /// As text, with its newline.
    fn write(&self, shape: Shape) -> String {
        let mut out = String::new();
        let (opening, closing) = match shape {
            Shape::Json => (r#"{"timestamp":""#, "}\n"),
            Shape::Text => ("", "\n"),
        };
        // Writing to a String does not fail.
        let _ = write!(out, "{opening}{}", self.time);
        out.push_str(match shape {
            Shape::Json => r#"","level":"INFO","message":"audit""#,
            Shape::Text => " AUDIT",
        });
        for (name, value) in &self.fields {
            let _ = match shape {
                Shape::Json => write!(out, r#","{name}":"#),
                Shape::Text => write!(out, " {name}="),
            };
            let _ = json_string(&mut out, value);
        }
        out.push_str(closing);
        out
    }
}

/// A value without credentials and without end.
fn bounded(text: &str) -> Cow<'_, str> {
    let text = redacted(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text,
    }
}

/// What the writing thread is told.
enum Order {
    Write(Line),
    /// There may be another sink.
    Look,
    /// Answer once all that was told before is written.
    Answer(SyncSender<()>),
}

/// The writing thread's front. Dropping the last clone ends it once all is written.
#[derive(Clone)]
pub struct Writer {
    orders: SyncSender<Order>,
    next: Arc<Mutex<Option<Sink>>>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(sink: Sink) -> io::Result<Self> {
        let (orders, waiting) = sync_channel(WAITING);
        let (next, lost) = (Arc::default(), Arc::default());
        let desk = Desk { sink, next: Arc::clone(&next), lost: Arc::clone(&lost), told: 0, failing: false };
        thread::Builder::new().name("audit".into()).spawn(move || desk.work(&waiting))?;
        Ok(Self { orders, next, lost })
    }

    /// Hands a line over. Never waits.
    pub fn write(&self, line: Line) {
        if self.orders.try_send(Order::Write(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that found no room, or that a file did not take, since the start. Those that the log did not take are its own.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes to `sink` from now on.
    pub fn turn_to(&self, sink: Sink) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
        // With a full queue the thread is awake, and looks before its next line.
        let _ = self.orders.try_send(Order::Look);
    }

    /// Waits until all is written that was handed over, but not for long.
    pub fn finish(&self) {
        let (answer, answered) = sync_channel(1);
        if self.orders.try_send(Order::Answer(answer)).is_ok() {
            let _ = answered.recv_timeout(LAST_WORDS);
        }
    }
}

/// The writing thread's own.
struct Desk {
    sink: Sink,
    next: Arc<Mutex<Option<Sink>>>,
    lost: Arc<AtomicU64>,
    /// The losses that were reported.
    told: u64,
    /// The last line could not be written.
    failing: bool,
}

impl Desk {
    fn work(mut self, waiting: &Receiver<Order>) {
        for order in waiting {
            if let Some(sink) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.sink = sink;
            }
            match order {
                Order::Write(line) => self.write(&line),
                Order::Look => {}
                Order::Answer(answer) => drop(answer.send(())),
            }
        }
    }

    fn write(&mut self, line: &Line) {
        match self.sink.write(line) {
            Ok(()) => {
                let lost = self.lost.load(Ordering::Relaxed);
                if lost > self.told {
                    tracing::warn!(lost = lost - self.told, "the audit can be written again");
                    self.told = lost;
                }
                self.failing = false;
            }
            Err(error) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                // Once, not for each line: the log may lie on the same disk.
                if !self.failing {
                    tracing::error!(%error, "the audit cannot be written; lines are lost until it can");
                }
                self.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> Line {
        let about = About { user: Some(name.into()), more: Some(("roles", "a,b".into())), ..About::default() };
        let actor = Actor::Client { address: [127, 0, 0, 1].into(), user_agent: Some("x\u{9b}2J"), request_id: "r" };
        Line::new(UnixTime::from_secs(0), Event::Login, Outcome::Failure("wrong_credentials"), actor, &about)
    }

    #[test]
    fn names_are_escaped_and_bounded() {
        let name = format!("\"\\\n\u{1b}[31m\u{85}{}", "é".repeat(400));
        let json = line(&name).write(Shape::Json);
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let written = value["user"].as_str().unwrap();
        assert_eq!(written.chars().count(), LONGEST + 1);
        assert!(name.starts_with(written.trim_end_matches('…')), "{written}");
        let text = line(&name).write(Shape::Text);
        assert!(text.ends_with('\n') && !text.trim_end().contains(char::is_control), "{text:?}");
        assert!(
            text.starts_with(r#"1970-01-01T00:00:00.000Z AUDIT event="login" outcome="failure" reason="#),
            "{text}"
        );
    }

    #[test]
    fn a_full_queue_loses_lines_and_stops_nobody() {
        let (orders, _waiting) = sync_channel(2);
        let writer = Writer { orders, next: Arc::default(), lost: Arc::default() };
        (0..5).for_each(|_| writer.write(line("alice")));
        assert_eq!(writer.lost(), 3);
    }
}
