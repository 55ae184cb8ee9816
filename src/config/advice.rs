//! What a newcomer probably meant: the right form, by where in the file the wrong one stands.

/// Keys that others use, or that stand elsewhere here: where they stand, how they are called, and what to write.
/// `NAME` stands for the key itself.
const MEANT: [(&str, &[&str], &str); 11] = [
    ("", &["listen", "port", "bind", "address"], "server: {listen: 127.0.0.1:8080}"),
    ("", &["tls"], "server: {tls: {certificates: [{cert: tls/site.pem, key: tls/site.key}]}}"),
    ("", &["workers", "trusted_proxies", "timeouts", "limits"], "server: {NAME: …}"),
    ("", &["secret", "jwt_secret", "jwt"], "tokens: {secret: …}"),
    ("", &["database", "db", "database_url"], "store: {url: sqlite:portcullis.db}"),
    ("", &["backends", "services", "servers"], "upstreams: {app: {servers: [http://127.0.0.1:5000]}}"),
    ("server", &["port", "bind", "address", "host"], "listen: 127.0.0.1:8080"),
    ("store", &["path", "file", "database"], "url: sqlite:portcullis.db"),
    ("tokens", &["ttl", "expiry", "lifetime", "expires"], "access_ttl: 15m"),
    ("upstreams.*", &["url", "urls", "address", "backend"], "servers: [http://127.0.0.1:5000]"),
    ("routes", &["roles", "claims", "fresh", "issuers"], "auth: {NAME: …}"),
];

/// What to write where something else than a mapping, a list or text of a certain form was found.
const FORMS: [(&str, &str); 14] = [
    ("server", "{listen: 127.0.0.1:8080}"),
    ("server.listen", "127.0.0.1:8080, 0.0.0.0:8080 for all addresses, or unix:/run/portcullis.sock"),
    ("server.tls", "{certificates: [{cert: tls/site.pem, key: tls/site.key}]}"),
    ("admin", "{listen: 127.0.0.1:9180}"),
    ("admin.listen", "127.0.0.1:9180"),
    ("log", "{level: debug}"),
    ("store", "{url: sqlite:portcullis.db}"),
    ("identity.refresh_rotation", "{enabled: true}"),
    ("upstreams", "upstreams: {app: {servers: [http://127.0.0.1:5000]}}, where `app` is the name that routes use"),
    ("upstreams.*", "{servers: [http://127.0.0.1:5000]}"),
    ("upstreams.*.health", "{path: /healthz, every: 5s}"),
    ("routes", "[{path: /*, upstream: app}]"),
    ("routes.auth", "{roles: [admin]}"),
    ("routes.cors", "{origins: [https://app.example.com]}"),
];

/// `Did you mean X? ` for a key that is not known at `place`, or nothing.
pub(super) fn hint(place: &str, name: &str) -> Option<String> {
    let meant = MEANT.iter().find(|(at, names, _)| *at == place && names.contains(&name));
    meant.map(|(_, _, write)| format!("Did you mean `{}`? ", write.replace("NAME", name)))
}

/// The remedy for a value that is not of the form that `place` takes, which is described by `expected`.
pub(super) fn remedy(place: &str, expected: &str) -> Option<String> {
    if let Some((_, write)) = FORMS.iter().find(|(at, _)| *at == place) {
        // What is wrong may be the list or one of its entries.
        let write = if expected == "a list" { write } else { write.trim_matches(['[', ']']) };
        return Some(format!("Write such as {write}"));
    }
    let write = match expected {
        _ if expected.starts_with("a duration") => "500ms, 10s, 15m, 1h30m or 30d",
        _ if expected.starts_with("a rate") && place.starts_with("identity.attempts") => "5/15m or 50/5m, or off",
        _ if expected.starts_with("a rate") => "100/s, 5/15m or 1000/h",
        _ => return None,
    };
    Some(format!("Write such as {write}"))
}
