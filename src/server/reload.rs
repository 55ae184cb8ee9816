//! Reloading: SIGHUP, or a file that has changed. The new configuration is validated and built whole, and then swapped in;
//! one that is wrong changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, App};
use crate::clock;
use crate::config::{self, Config};
use crate::gate::explain;
use crate::server::doors::Doors;
use crate::server::tls;

/// How often files are looked at. A change counts once it has stood still for one look.
const LOOK: Duration = Duration::from_secs(1);

/// Before a reload is tried again that the store did not allow.
const RETRY: Duration = Duration::from_secs(5);

/// Where the configuration comes from, each time anew.
pub struct Origin {
    /// gateway.yaml.
    pub path: PathBuf,
    /// Reads and checks it.
    pub load: Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>,
}

impl Origin {
    /// How gateway.yaml looks, and the files that `config` names. To be asked before these are read.
    pub fn look(&self, config: &Config) -> Look {
        look(std::iter::once(&self.path).chain(&config.files))
    }
}

/// Says what works but deserves a loud word.
pub fn warn_of(config: &Config) {
    // `check` refuses this. A running gateway must not, or a version with one more endpoint would not start.
    if let Err(hidden) = explain::check_hidden(config) {
        tracing::warn!("{hidden}");
    }
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, "{}", warning.message);
    }
}

/// Why the present configuration stays.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    App(#[from] app::Error),
    /// A file that is cut off reads well, and would close every route and perhaps open registration.
    #[error("routes: there are none any more, as in a file that is half written; to have none, write `routes: []`")]
    HalfWritten,
}

/// The service that reloads.
pub struct Reload {
    origin: Origin,
    app: Arc<App>,
    doors: Arc<Doors>,
    watch: Watch,
    /// When a reload is tried again although no file has changed.
    retry: Option<Instant>,
}

impl Reload {
    /// Reloads `app` and `doors` from `origin`, whose files were `seen` at the start.
    pub fn new(origin: Origin, app: Arc<App>, doors: Arc<Doors>, seen: Look) -> Self {
        Self { origin, app, doors, watch: Watch::new(seen), retry: None }
    }

    /// Gives the files that were tried, as they were `seen` before that.
    async fn reload(&mut self, why: &str, mut seen: Look) -> Look {
        let (loaded, files) = self.load(&mut seen);
        let outcome = self.try_reload(loaded).await;
        // A present file that the attempt does not name is still what the gateway runs on, if the attempt failed.
        let edition = self.app.edition();
        let kept =
            |path: &PathBuf| *path == self.origin.path || files.contains(path) || edition.config.files.contains(path);
        seen.retain(|path, _| kept(path));
        self.app.counters().reloaded(outcome.is_ok());
        let of_store = matches!(&outcome, Err(Error::App(error)) if error.is_of_store());
        self.retry = of_store.then(|| clock::monotonic() + RETRY);
        match outcome {
            Ok(waiting) => {
                tracing::info!(why, "gateway.yaml is reloaded");
                warn_of(&self.app.edition().config);
                for key in waiting {
                    tracing::warn!(
                        key,
                        "{key}: the file differs from what runs; restart, or run --upgrade, to apply it"
                    );
                }
            }
            Err(error) => tracing::error!(why, "not reloaded, the old configuration stays: {error}"),
        }
        seen
    }

    /// Reads the configuration, and gives the files that it names, good or bad. Each of them is `seen` before it is read:
    /// whatever comes or changes meanwhile is a change.
    fn load(&self, seen: &mut Look) -> (Result<Config, config::Error>, Vec<PathBuf>) {
        loop {
            let loaded = (self.origin.load)();
            let files = loaded.as_ref().map_or_else(config::Error::files, |config| &config.files).to_vec();
            let unseen = look(files.iter().filter(|path| !seen.contains_key(*path)));
            if unseen.is_empty() {
                return (loaded, files);
            }
            seen.extend(unseen);
        }
    }

    async fn try_reload(&self, loaded: Result<Config, config::Error>) -> Result<Vec<&'static str>, Error> {
        let config = loaded?;
        let has_routes = !config.routes.is_empty() || config::line_of(&self.origin.path, "routes").is_some();
        if !has_routes && !self.app.edition().config.routes.is_empty() {
            return Err(Error::HalfWritten);
        }
        let renewal = self.doors.load(&config.server)?;
        let waiting = self.app.renew(config).await?;
        self.doors.renew(renewal);
        Ok(waiting)
    }

    /// Reloads what was `seen`. From then on those files are watched that the present configuration names, and those that
    /// the attempt named: it may have failed for one that is yet to come.
    async fn take(&mut self, why: &str, seen: Look) {
        let tried = self.reload(why, seen).await;
        self.watch.note(tried);
    }

    async fn run(&mut self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                heard = hangup.recv() => {
                    if heard.is_none() {
                        return Ok(());
                    }
                    let now = self.watch.look();
                    if self.watch.is_as_tried(&now) {
                        tracing::info!(
                            "SIGHUP: no file has changed since the last reload; a single file that is mounted into a \
                             container keeps its old inode when it is replaced: mount its folder"
                        );
                    }
                    self.take("SIGHUP", now).await;
                }
                _ = looks.tick() => {
                    let now = self.watch.look();
                    if self.watch.is_due(&now) {
                        self.take("a file has changed", now).await;
                    } else if self.retry.is_some_and(|at| at <= clock::monotonic()) {
                        self.take("the store did not allow it before", now).await;
                    }
                }
            }
        }
    }
}

/// What the files look like from outside.
pub type Look = BTreeMap<PathBuf, Option<Mark>>;

fn look<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Look {
    files.into_iter().map(|path| (path.clone(), Mark::of(path))).collect()
}

/// Which files make the configuration, and whether they have changed.
struct Watch {
    /// As the last attempt had them.
    tried: Look,
    /// At the last look.
    last: Look,
}

impl Watch {
    fn new(seen: Look) -> Self {
        Self { tried: seen.clone(), last: seen }
    }

    fn look(&self) -> Look {
        look(self.tried.keys())
    }

    /// Whether what is there `now` is to be tried: it is not what was tried, and has stood still for a look.
    fn is_due(&mut self, now: &Look) -> bool {
        let still = self.last == *now;
        self.last.clone_from(now);
        still && self.tried != *now
    }

    /// Whether what is there `now` was tried already.
    fn is_as_tried(&self, now: &Look) -> bool {
        self.tried == *now
    }

    /// Notes what was `tried`, good or bad.
    fn note(&mut self, tried: Look) {
        self.last.clone_from(&tried);
        self.tried = tried;
    }
}

/// A file as far as its directory entry tells: enough to see that it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Mark {
    /// `None` for a file that is not there.
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { changed: (meta.mtime(), meta.mtime_nsec()), size: meta.size(), inode: meta.ino() })
    }
}

#[async_trait]
impl Service for Reload {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if let Err(error) = self.run().await {
            tracing::error!(%error, "SIGHUP cannot be watched: this process will not reload");
        }
    }

    fn name(&self) -> &'static str {
        "reload"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests;
