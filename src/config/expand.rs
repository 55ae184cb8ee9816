//! `${NAME}` and `${NAME:-default}` inside string values.

/// What stops an expansion. The texts name variables, never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The environment has no such variable.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// It has, but with nothing in it.
    #[error("the environment variable {0} is empty")]
    Empty(String),
    /// `${` without `}`.
    #[error("a `${{` is never closed")]
    Open,
    /// What stands between the braces is not a name.
    #[error("`${{…}}` does not hold a name of A-Z a-z 0-9 _")]
    Name,
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unset(name) | Self::Empty(name) => format!("Set {name}, or give a default: ${{{name}:-default}}"),
            Self::Open | Self::Name => "Write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`".into(),
        }
    }
}

/// Replaces every variable in `text`, once: what a variable holds is not expanded again.
///
/// # Errors
/// All that is wrong in `text`.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<Error>> {
    let (mut out, mut errors, mut rest) = (String::with_capacity(text.len()), Vec::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, behind)) = after.split_once('}') else {
            errors.push(Error::Open);
            rest = "";
            break;
        };
        match look_up(inside, env) {
            Ok(value) => out.push_str(&value),
            Err(error) => errors.push(error),
        }
        rest = behind;
    }
    out.push_str(rest);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn look_up(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !fits || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Error::Name);
    }
    match (env(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.into()),
        (Some(_), None) => Err(Error::Empty(name.into())),
        (None, None) => Err(Error::Unset(name.into())),
    }
}
