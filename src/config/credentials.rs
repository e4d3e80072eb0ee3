//! Credentials for the upstream, kept in a file so that they can be changed while the process runs.

use http::HeaderValue;
use std::fs;
use std::path::PathBuf;

/// Where an `Authorization` header comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How they are presented.
    pub scheme: Scheme,
    /// The file that holds them.
    pub path: PathBuf,
}

/// How credentials are presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `user:password`, RFC 7617.
    Basic,
    /// A bare token, RFC 6750.
    Bearer,
}

/// Why a file of credentials is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] std::io::Error),
    /// It is larger than credentials are.
    #[error("holds {given} bytes, more than {max}")]
    TooBig {
        /// Its size, bytes.
        given: u64,
        /// The bound, bytes.
        max: u64,
    },
    /// It holds nothing.
    #[error("is empty")]
    Empty,
    /// `user:password` without the colon.
    #[error("does not hold user:password (the colon is missing)")]
    NoColon,
    /// It holds characters that a header must not.
    #[error("holds line breaks or other characters that a header must not hold")]
    BadCharacter,
}

const FILE_MAX_BYTES: u64 = 64 << 10;

impl Credentials {
    /// Reads the file into the value of an `Authorization` header. White space around its content is ignored.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold what the scheme asks for.
    pub fn read(&self) -> Result<HeaderValue, CredentialsError> {
        let given = fs::metadata(&self.path)?.len();
        if given > FILE_MAX_BYTES {
            return Err(CredentialsError::TooBig { given, max: FILE_MAX_BYTES });
        }
        let text = fs::read_to_string(&self.path)?;
        let text = text.trim();
        if text.is_empty() {
            return Err(CredentialsError::Empty);
        }
        let value = match self.scheme {
            Scheme::Basic if !text.contains(':') => return Err(CredentialsError::NoColon),
            Scheme::Basic if text.contains(char::is_control) => return Err(CredentialsError::BadCharacter),
            Scheme::Basic => format!("Basic {}", base64(text.as_bytes())),
            Scheme::Bearer => format!("Bearer {text}"),
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| CredentialsError::BadCharacter)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Base 64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut block = [0; 3];
        block[..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes([0, block[0], block[1], block[2]]);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= three.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(scheme: Scheme, content: &[u8]) -> Result<String, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("written");
        let read = Credentials { scheme, path: file.path().to_owned() }.read();
        read.map(|value| value.to_str().expect("text").to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn base64_of_the_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn files_become_headers() {
        assert_eq!(
            read(Scheme::Basic, b"Aladdin:open sesame\n"),
            Ok("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned())
        );
        assert_eq!(read(Scheme::Bearer, b"  t0ken\n"), Ok("Bearer t0ken".to_owned()));
        assert_eq!(read(Scheme::Basic, b"Aladdin"), Err(CredentialsError::NoColon.to_string()));
        assert_eq!(read(Scheme::Bearer, b"\n"), Err(CredentialsError::Empty.to_string()));
        assert_eq!(read(Scheme::Bearer, b"a\nb"), Err(CredentialsError::BadCharacter.to_string()));
    }
}
