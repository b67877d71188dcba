//! Private keys under a password, as cosign writes them: JSON in PEM, scrypt (RFC 7914) and NaCl's secretbox.
//!
//! Source: securesystemslib's `encrypted`, which cosign, skopeo and podman use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What new keys are sealed with: of the parameters that exist the ones that every version of every program accepts.
const COST: Params = Params { cost: 32_768, block: 8, lanes: 1 };
/// Memory that opening a key may take, in bytes; cosign's strongest parameters need a quarter of it.
const MOST_MEMORY: u64 = 512 << 20;
/// Rounds, each of the same cost.
const MOST_LANES: u32 = 4;

const KDF: &str = "scrypt";
const CIPHER: &str = "nacl/secretbox";
const TAG: usize = 16;

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    cost: u64,
    #[serde(rename = "r")]
    block: u32,
    #[serde(rename = "p")]
    lanes: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Seals bytes under a password.
pub(super) fn seal(plain: &[u8], password: &str) -> Result<Vec<u8>> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(|_| Error::new("the system has no random numbers"))?;
    let key = derive(password, &salt, COST)?;
    let mut bytes = plain.to_vec();
    let (mut stream, mac) = start(&key, &nonce);
    stream.apply_keystream(&mut bytes);
    let mut ciphertext = mac.compute_unpadded(&bytes).to_vec();
    ciphertext.extend_from_slice(&bytes);
    let sealed = Sealed {
        kdf: Kdf { name: KDF.into(), params: COST, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: CIPHER.into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    Ok(serde_json::to_vec(&sealed).expect("plain data"))
}

/// Opens what [`seal`] or cosign sealed. A wrong password is `Denied`.
pub(super) fn open(sealed: &[u8], password: &str) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::with_kind(Kind::Corrupt, "the encrypted key can't be understood").cause(why);
    let sealed: Sealed = serde_json::from_slice(sealed).map_err(|e| bad(&e.to_string()))?;
    if sealed.kdf.name != KDF || sealed.cipher.name != CIPHER {
        return Err(Error::with_kind(Kind::Unsupported, "the key is encrypted in an unknown way")
            .cause(format!("by {} and {}, instead of {KDF} and {CIPHER}", sealed.kdf.name, sealed.cipher.name)));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|e| bad(&e.to_string()));
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| bad("the nonce has not 24 bytes"))?;
    let key = derive(password, &decode(&sealed.kdf.salt)?, sealed.kdf.params)?;
    let ciphertext = decode(&sealed.ciphertext)?;
    let (tag, bytes) = ciphertext.split_at_checked(TAG).ok_or_else(|| bad("it is too short"))?;
    let (mut stream, mac) = start(&key, &nonce);
    // Nobody can measure the time: the file and the password are the user's own.
    if mac.compute_unpadded(bytes)[..] != *tag {
        return Err(Error::with_kind(Kind::Denied, "the key's password is wrong"));
    }
    let mut bytes = bytes.to_vec();
    stream.apply_keystream(&mut bytes);
    Ok(bytes)
}

/// NaCl's secretbox: the first 32 bytes of the key stream are the authenticator's key, the rest covers the message.
fn start(key: &[u8; 32], nonce: &[u8; 24]) -> (XSalsa20, Poly1305) {
    let mut stream = XSalsa20::new(&(*key).into(), &(*nonce).into());
    let mut first = [0; 32];
    stream.apply_keystream(&mut first);
    (stream, Poly1305::new(&first.into()))
}

fn derive(password: &str, salt: &[u8], params: Params) -> Result<[u8; 32]> {
    let Params { cost, block, lanes } = params;
    let memory = cost.saturating_mul(u64::from(block)).saturating_mul(128);
    let refuse = || {
        Error::with_kind(Kind::Unsupported, "the key is encrypted with unusual parameters")
            .cause(format!("scrypt with N={cost}, r={block}, p={lanes}"))
    };
    if !cost.is_power_of_two() || memory > MOST_MEMORY || lanes > MOST_LANES {
        return Err(refuse());
    }
    let params = scrypt::Params::new(cost.trailing_zeros() as u8, block, lanes).map_err(|_| refuse())?;
    let mut key = [0; 32];
    scrypt::scrypt(password.as_bytes(), salt, &params, &mut key).map_err(|_| refuse())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_seals() {
        let sealed = seal(b"secret", "pass").unwrap();
        assert_eq!(open(&sealed, "pass").unwrap(), b"secret");
        assert_eq!(open(&sealed, "Pass").unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn refuses_what_would_take_for_ever() {
        let sealed = String::from_utf8(seal(b"secret", "").unwrap()).unwrap();
        for (from, to, expected) in [
            ("\"N\":32768", "\"N\":32767", "unusual"),
            ("\"N\":32768", "\"N\":1073741824", "unusual"),
            ("\"p\":1", "\"p\":1000000", "unusual"),
            ("secretbox", "box", "unknown way"),
            ("{\"kdf\"", "{\"x\"", "can't be understood"),
        ] {
            let error = open(sealed.replace(from, to).as_bytes(), "").unwrap_err();
            assert!(error.what().contains(expected), "{to}: {error}");
        }
    }
}
