//! Reloading: SIGHUP, or a file that has changed. The new configuration is validated and built whole, and then swapped in;
//! one that is wrong changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, App};
use crate::config::{self, Config};
use crate::server::doors::{Doors, Renewal};
use crate::server::tls;

/// How often files are looked at. A change counts once it has stood still for one look.
const LOOK: Duration = Duration::from_secs(1);

/// Where the configuration comes from, each time anew.
pub struct Origin {
    /// gateway.yaml.
    pub path: PathBuf,
    /// Reads and checks it.
    pub load: Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>,
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
}

/// The service that reloads.
pub struct Reload {
    origin: Origin,
    app: Arc<App>,
    doors: Arc<Doors>,
}

impl Reload {
    /// Reloads `app` and `doors` from `origin`.
    pub fn new(origin: Origin, app: Arc<App>, doors: Arc<Doors>) -> Self {
        Self { origin, app, doors }
    }

    async fn reload(&self, why: &str) {
        let outcome = self.try_reload().await;
        self.app.counters().reloaded(outcome.is_ok());
        match outcome {
            Ok(waiting) => {
                tracing::info!(why, "gateway.yaml is reloaded");
                for key in waiting {
                    tracing::warn!(key, "has changed: that takes effect at a restart only");
                }
            }
            Err(error) => tracing::error!(why, "not reloaded, the old configuration stays: {error}"),
        }
    }

    async fn try_reload(&self) -> Result<Vec<&'static str>, Error> {
        let config = (self.origin.load)()?;
        let renewal = Renewal::load(&config.server)?;
        let waiting = self.app.renew(config).await?;
        self.doors.renew(renewal);
        Ok(waiting)
    }

    /// What the files look like from outside.
    fn look(&self) -> Look {
        let edition = self.app.edition();
        let files = std::iter::once(self.origin.path.clone()).chain(files(&edition.config));
        files.map(|path| (path.clone(), Mark::of(&path))).collect()
    }

    /// Reloads what was `seen`. Gives what is loaded then: files that are named only now count as they are.
    async fn take(&self, why: &str, seen: Look) -> Look {
        self.reload(why).await;
        let mut loaded = self.look();
        for (path, mark) in &mut loaded {
            if let Some(seen) = seen.get(path) {
                *mark = *seen;
            }
        }
        loaded
    }

    async fn watch(&self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut looks = tokio::time::interval(LOOK);
        let mut loaded = self.look();
        let mut last = loaded.clone();
        loop {
            tokio::select! {
                heard = hangup.recv() => {
                    if heard.is_none() {
                        return Ok(());
                    }
                    loaded = self.take("SIGHUP", self.look()).await;
                }
                _ = looks.tick() => {
                    let now = self.look();
                    if now == last && now != loaded {
                        loaded = self.take("a file has changed", now).await;
                    }
                    last = self.look();
                }
            }
        }
    }
}

/// The files beside gateway.yaml that are read when parts are built.
fn files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let own = config.server.tls.iter().flat_map(tls::files);
    own.chain(config.upstreams.iter().filter_map(|upstream| upstream.tls.ca.clone()))
}

type Look = BTreeMap<PathBuf, Option<Mark>>;

/// A file as far as its directory entry tells: enough to see that it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
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
        if let Err(error) = self.watch().await {
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
