//! Files that say which senders may write: passwords (htpasswd, bcrypt) and bearer tokens.
//!
//! Owns their form. Checks nobody's credentials, and shows nothing of the content: not in errors, not in debug output.

use super::ClientTls;
use bcrypt::HashParts;
use http::{HeaderValue, Uri};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What authentication needs. With none of them, everybody may write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// A file of [`Passwords`].
    pub passwords: Option<PathBuf>,
    /// A file of [`Tokens`].
    pub tokens: Option<PathBuf>,
    /// Whose JSON web tokens are taken.
    pub oidc: Option<OidcConfig>,
}

/// An OpenID provider, and what its tokens must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// Its address.
    pub issuer: Uri,
    /// The same as it was given: tokens name it letter by letter.
    pub issuer_name: String,
    /// For whom its tokens must be.
    pub audience: String,
    /// The claim that names the tenant; `None`: any tenant.
    pub tenant_claim: Option<String>,
    /// Who signs its certificate, if its address is `https://`.
    pub tls: ClientTls,
}

/// Why such a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum GrantsError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    /// It is larger than such files are.
    #[error("holds more than {max} bytes")]
    TooBig {
        /// The bound, bytes.
        max: u64,
    },
    /// It grants nothing to anybody.
    #[error("is empty")]
    Empty,
    /// One of its lines is wrong.
    #[error("is wrong in line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: LineProblem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// `user:hash` without the colon or the user.
    #[error("not user:hash")]
    NotUserAndHash,
    /// MD5, SHA-1, crypt or plain text.
    #[error("not a bcrypt hash, and no other kind is taken (htpasswd -B makes them)")]
    NotBcrypt,
    /// Each check would take seconds.
    #[error("a bcrypt cost of {given}, at most {max} is taken")]
    TooDear {
        /// Its cost.
        given: u32,
        /// The bound.
        max: u32,
    },
    /// The same user or token as in a line before.
    #[error("the same user or token as in a line before")]
    Twice,
    /// Neither `token` nor `token tenant`.
    #[error("more than a token and a tenant")]
    TooManyWords,
    /// A header could not hold the token.
    #[error("a token of other characters than letters, digits and -._~+/=")]
    BadToken,
    /// A header could not hold the tenant.
    #[error("a tenant that a header cannot hold")]
    BadTenant,
}

const FILE_MAX_BYTES: u64 = 1 << 20;
/// Each step doubles the time: 10 takes about 50 ms, 15 one to two seconds.
const COST_MAX: u32 = 15;

/// Users and the bcrypt hashes of their passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords(pub Vec<(String, String)>);

/// Tokens, and the tenant that each is for; `None`: any.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(pub Vec<(String, Option<HeaderValue>)>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords of {} users", self.0.len())
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Tokens", self.0.len())
    }
}

impl Passwords {
    /// Reads lines of `user:hash`. Empty ones, and those that begin with `#`, are left out.
    ///
    /// # Errors
    /// When the file cannot be read, or one line is wrong.
    pub fn read(path: &Path) -> Result<Self, GrantsError> {
        let mut names = HashSet::new();
        let users = lines(path, |line| {
            let pair = line.split_once(':').filter(|(user, _)| !user.is_empty());
            let (user, hash) = pair.ok_or(LineProblem::NotUserAndHash)?;
            check_hash(hash)?;
            if !names.insert(user.to_owned()) {
                return Err(LineProblem::Twice);
            }
            Ok((user.to_owned(), hash.to_owned()))
        })?;
        Ok(Self(users))
    }
}

impl Tokens {
    /// Reads lines of `token` or `token tenant`. Empty ones, and those that begin with `#`, are left out.
    ///
    /// # Errors
    /// When the file cannot be read, or one line is wrong.
    pub fn read(path: &Path) -> Result<Self, GrantsError> {
        let mut seen = HashSet::new();
        let tokens = lines(path, |line| {
            let mut words = line.split_ascii_whitespace();
            let token = words.next().unwrap_or_default();
            let tenant = words.next();
            if words.next().is_some() {
                return Err(LineProblem::TooManyWords);
            }
            // RFC 6750, section 2.1.
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            if !token.bytes().all(allowed) {
                return Err(LineProblem::BadToken);
            }
            if !seen.insert(token.to_owned()) {
                return Err(LineProblem::Twice);
            }
            let tenant = tenant.map(HeaderValue::from_str).transpose();
            Ok((token.to_owned(), tenant.map_err(|_| LineProblem::BadTenant)?))
        })?;
        Ok(Self(tokens))
    }
}

fn check_hash(hash: &str) -> Result<(), LineProblem> {
    let of_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind));
    let parts: HashParts =
        hash.parse().ok().filter(|_| of_bcrypt && hash.len() == 60).ok_or(LineProblem::NotBcrypt)?;
    match parts.get_cost() {
        given if given > COST_MAX => Err(LineProblem::TooDear { given, max: COST_MAX }),
        _ => Ok(()),
    }
}

fn lines<T>(
    path: &Path,
    mut parse: impl FnMut(&str) -> Result<T, LineProblem>,
) -> Result<Vec<T>, GrantsError> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(GrantsError::TooBig { max: FILE_MAX_BYTES });
    }
    let mut parsed = Vec::new();
    for (place, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |problem| GrantsError::Line { line: place + 1, problem };
        let line = std::str::from_utf8(line).map_err(|_| wrong(LineProblem::NotText))?.trim();
        if !line.is_empty() && !line.starts_with('#') {
            parsed.push(parse(line).map_err(wrong)?);
        }
    }
    if parsed.is_empty() {
        return Err(GrantsError::Empty);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuPz1F9Ywyx4Q2eoA1Vh2ckQ5TV4EBHOe";

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    fn passwords(content: &str) -> Result<usize, String> {
        let read = Passwords::read(file(content.as_bytes()).path());
        read.map(|read| read.0.len()).map_err(|error| error.to_string())
    }

    fn tokens(content: &[u8]) -> Result<Vec<(String, Option<String>)>, String> {
        let read = Tokens::read(file(content).path()).map_err(|error| error.to_string())?;
        let text = |tenant: HeaderValue| tenant.to_str().expect("text").to_owned();
        Ok(read.0.into_iter().map(|(token, tenant)| (token, tenant.map(text))).collect())
    }

    #[test]
    fn htpasswd_lines() {
        assert_eq!(passwords(&format!("# people\n\na:{HASH}\r\nb:{HASH}\n")), Ok(2));
        for (content, words) in [
            ("", "is empty"),
            ("# nobody\n", "is empty"),
            ("just-a-secret", "line 1: not user:hash"),
            (":x", "line 1: not user:hash"),
            (&format!("a:{HASH}\nb:$apr1$x$s3cret"), "line 2: not a bcrypt hash"),
            ("a:{SHA}s3cret", "line 1: not a bcrypt hash"),
            ("a:s3cret", "line 1: not a bcrypt hash"),
            (&format!("a:{}", &HASH[..50]), "line 1: not a bcrypt hash"),
            (&format!("a:{}", HASH.replace("$04$", "$16$")), "line 1: a bcrypt cost of 16, at most 15"),
            (&format!("a:{HASH}\n\na:{HASH}"), "line 3: the same user"),
        ] {
            let error = passwords(content).expect_err(content);
            assert!(error.contains(words), "{content:?}: {error}");
            assert!(!error.contains("s3cret") && !error.contains(HASH), "{error}");
        }
    }

    #[test]
    fn token_lines() {
        let read = tokens(b"# ours\nabc\n  d-._~+/=  team-a \r\n").expect("tokens");
        assert_eq!(read, [("abc".to_owned(), None), ("d-._~+/=".to_owned(), Some("team-a".to_owned()))]);
        for (content, words) in [
            (&b"\n"[..], "is empty"),
            (b"s3cret tenant more", "line 1: more than"),
            (b"a\ns3cret\xff", "line 2: not UTF-8"),
            (b"s3cret,", "line 1: a token of other"),
            (b"s3cret\nb\ns3cret x", "line 3: the same"),
            ("s3cret \u{7f}".as_bytes(), "line 1: a tenant"),
        ] {
            let error = tokens(content).expect_err(words);
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn debug_output_shows_nothing() {
        let tokens = Tokens(vec![("s3cret".to_owned(), None)]);
        let passwords = Passwords(vec![("s3cret".to_owned(), "s3cret".to_owned())]);
        assert!(!format!("{tokens:?}{passwords:?}").contains("s3cret"));
    }
}
