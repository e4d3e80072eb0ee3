//! A token taken apart, and the keys that prove it. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};

/// Longer ones are nobody's: a token is sent with every request.
const TOKEN_MAX_BYTES: usize = 16 << 10;
const KEYS_MAX: usize = 64;

/// A token that has not been proven.
#[derive(Debug)]
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    pub(super) claims: Claims,
    /// Header and claims, as they were signed.
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// The ones taken. Not among them: `none`, and those with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) audience: Vec<String>,
    pub(super) expires_s: f64,
    /// Zero: at any time.
    pub(super) not_before_s: f64,
    all: Map<String, Value>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        if text.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let signature_at = text.iter().rposition(|byte| *byte == b'.')?;
        let (signed, signature) = (&text[..signature_at], &text[signature_at + 1..]);
        let claims_at = signed.iter().position(|byte| *byte == b'.')?;
        let header = object(&signed[..claims_at])?;
        let claims = object(&signed[claims_at + 1..])?;
        // What has to be understood and is not (RFC 7515, 4.1.11).
        if header.contains_key("crit") {
            return None;
        }
        let algorithm = match header.get("alg")?.as_str()? {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            "EdDSA" => Algorithm::EdDsa,
            _ => return None,
        };
        let key_id = match header.get("kid") {
            Some(id) => Some(id.as_str()?.to_owned()),
            None => None,
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { algorithm, key_id, claims: Claims::of(claims)?, signed, signature })
    }
}

impl Claims {
    fn of(all: Map<String, Value>) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let audience = match all.get("aud") {
            Some(Value::Array(several)) => several.iter().filter_map(text).collect(),
            one => one.and_then(text).into_iter().collect(),
        };
        let not_before_s = match all.get("nbf") {
            Some(time) => time.as_f64()?,
            None => 0.0,
        };
        Some(Self {
            issuer: all.get("iss").and_then(text)?,
            audience,
            expires_s: all.get("exp")?.as_f64()?,
            not_before_s,
            all,
        })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name)?.as_str()
    }
}

fn object(coded: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(coded).ok()?).ok()
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Keys {
    /// Reads a JWK set (RFC 7517). Keys of other kinds, and those for encryption, are left out.
    pub(super) fn parse(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        Some(Self(keys.iter().filter_map(Key::parse).take(KEYS_MAX).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them has signed the token; `None`: the one that it names is not
    /// among them, or it names none and is by none of them. The issuer may have newer ones.
    pub(super) fn verify(&self, token: &Token<'_>) -> Option<bool> {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        let mut fitting = self.0.iter().filter(named).peekable();
        fitting.peek()?;
        let proven = fitting.any(|key| key.public.verify(token));
        (proven || token.key_id.is_some()).then_some(proven)
    }
}

impl Key {
    fn parse(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|of| of != "sig") {
            return None;
        }
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                Public::P256([&[4][..], &x, &y].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), public })
    }
}

impl Public {
    fn verify(&self, token: &Token<'_>) -> bool {
        let (signed, signature) = (token.signed, &token.signature);
        match (self, token.algorithm) {
            (Self::Rsa { n, e }, Algorithm::Rs256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            (Self::P256(key), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed, signature).is_ok()
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}
