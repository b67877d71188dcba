//! Keys in files: who signs, and by whom something must be signed.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA256_ASN1, ED25519, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};

use super::der::{self, BIT_STRING, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};
use super::{pem, sealed};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::Digest;

/// What cosign calls an encrypted key, and what it called one before 2022.
const SEALED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// RFC 5480, RFC 8017, RFC 8410.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EDWARDS: &[u8] = &[0x2b, 0x65, 0x70];

/// A key that signs: ECDSA on the curve P-256, as cosign makes them.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

/// A key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// As the algorithm wants it.
    bits: Vec<u8>,
    /// SubjectPublicKeyInfo (RFC 5280).
    der: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    P256,
    P384,
    Rsa,
    Edwards,
}

impl PrivateKey {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::of_pkcs8(made.map_err(|_| Error::new("can't make a key").cause("the system has no random numbers"))?.as_ref().to_vec())
    }

    /// Reads a key file: PEM with PKCS#8 or SEC 1 as OpenSSL writes it, or cosign's encrypted form, for which the password is asked.
    pub fn read(text: &[u8], password: &mut dyn FnMut() -> Result<String>) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| no_pem("private"))?;
        for pem::Block { label, bytes } in pem::blocks(text) {
            let bytes = || bytes.clone().ok_or_else(|| unreadable(&label, "it is no base64, or encrypted in OpenSSL's old way"));
            match label.as_str() {
                "PRIVATE KEY" => return Self::of_pkcs8(bytes()?),
                "EC PRIVATE KEY" => return Self::of_sec1(&bytes()?),
                label if SEALED.contains(&label) => return Self::of_either(sealed::open(&bytes()?, &password()?)?),
                "ENCRYPTED PRIVATE KEY" => return Err(unreadable(&label, "OpenSSL's own encryption is not supported")),
                "RSA PRIVATE KEY" => return Err(not_p256("it is an RSA key")),
                label if label.contains("PUBLIC KEY") => {
                    return Err(Error::input("this is a public key").hint("give the private key, usually `NAME.key`, to sign"));
                }
                // `EC PARAMETERS`, certificates.
                _ => {}
            }
        }
        Err(no_pem("private"))
    }

    /// The text of a key file, encrypted as cosign does.
    pub fn to_pem(&self, password: &str) -> Result<String> {
        Ok(pem::write(SEALED[0], &sealed::seal(&self.pkcs8, password)?))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        let bits = self.pair.public_key().as_ref().to_vec();
        let kind = [der::value(OID, EC), der::value(OID, P256)].concat();
        let string = [&[0], &bits[..]].concat();
        let der = der::value(SEQUENCE, &[der::value(SEQUENCE, &kind), der::value(BIT_STRING, &string)].concat());
        PublicKey { algorithm: Algorithm::P256, bits, der }
    }

    /// Signs a message (ECDSA with SHA-256; DER).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| Error::new("can't sign").cause("the system has no random numbers"))?.as_ref().to_vec())
    }

    /// Keys that were imported into cosign's form are sometimes SEC 1 inside.
    fn of_either(bytes: Vec<u8>) -> Result<Self> {
        let mut outer = Reader(&bytes);
        let version = outer.take(SEQUENCE).and_then(|inner| Reader(inner).take(INTEGER));
        if version == Some(&[1]) { Self::of_sec1(&bytes) } else { Self::of_pkcs8(bytes) }
    }

    /// RFC 5915, wrapped into what it lacks to be RFC 5208.
    fn of_sec1(bytes: &[u8]) -> Result<Self> {
        let kind = [der::value(OID, EC), der::value(OID, P256)].concat();
        let parts = [der::value(INTEGER, &[0]), der::value(SEQUENCE, &kind), der::value(OCTET_STRING, bytes)];
        Self::of_pkcs8(der::value(SEQUENCE, &parts.concat()))
    }

    fn of_pkcs8(pkcs8: Vec<u8>) -> Result<Self> {
        let kind = Reader(&pkcs8).take(SEQUENCE).and_then(|inner| {
            let mut inner = Reader(inner);
            inner.take(INTEGER)?;
            Reader(inner.take(SEQUENCE)?).take(OID)
        });
        match kind {
            Some(RSA) => return Err(not_p256("it is an RSA key")),
            Some(EDWARDS) => return Err(not_p256("it is an Ed25519 key")),
            _ => {}
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &SystemRandom::new());
        let pair = pair.map_err(|why| not_p256(&format!("it can't be used: {why}")))?;
        Ok(Self { pair, pkcs8 })
    }
}

impl PublicKey {
    /// Reads the first public key of a PEM file: P-256, P-384, RSA of 2048 bits and more, or Ed25519.
    pub fn read(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| no_pem("public"))?;
        let blocks = pem::blocks(text);
        let Some(block) = blocks.iter().find(|block| block.label == "PUBLIC KEY") else {
            return Err(match blocks.iter().find(|block| block.label.contains("PRIVATE KEY")) {
                Some(_) => {
                    Error::input("this is a private key").hint("`rootling key public FILE` prints the public one that belongs to it")
                }
                None => no_pem("public"),
            });
        };
        let der = block.bytes.clone().ok_or_else(|| unreadable("PUBLIC KEY", "it is no base64"))?;
        let (algorithm, bits) = parts(&der)
            .ok_or_else(|| unreadable("PUBLIC KEY", "it is neither ECDSA on P-256 or P-384, nor RSA, nor Ed25519"))
            .map(|(algorithm, bits)| (algorithm, bits.to_vec()))?;
        Ok(Self { algorithm, bits, der })
    }

    /// The text of a key file.
    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.der)
    }

    /// Digest of the key's standard form, to tell keys apart.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Whether this key's owner signed the message. All but Ed25519, which has its own, with SHA-256, as cosign does for every key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::P256 => &ECDSA_P256_SHA256_ASN1,
            Algorithm::P384 => &ECDSA_P384_SHA256_ASN1,
            Algorithm::Rsa => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Edwards => &ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).is_ok()
    }
}

/// What a SubjectPublicKeyInfo holds.
fn parts(der: &[u8]) -> Option<(Algorithm, &[u8])> {
    let mut info = Reader(Reader(der).take(SEQUENCE)?);
    let mut kind = Reader(info.take(SEQUENCE)?);
    let algorithm = match kind.take(OID)? {
        EC => match kind.take(OID)? {
            P256 => Algorithm::P256,
            P384 => Algorithm::P384,
            _ => return None,
        },
        RSA => Algorithm::Rsa,
        EDWARDS => Algorithm::Edwards,
        _ => return None,
    };
    match info.take(BIT_STRING)?.split_first()? {
        (0, bits) => Some((algorithm, bits)),
        _ => None,
    }
}

fn no_pem(kind: &str) -> Error {
    Error::input(format!("there is no {kind} key in it"))
        .cause(format!("it is no PEM file with a block for a {kind} key"))
        .hint("`rootling key generate NAME` makes a pair: NAME.key and NAME.pub")
}

fn unreadable(label: &str, why: &str) -> Error {
    Error::with_kind(Kind::Unsupported, format!("the key {} can't be read", quote(label)))
        .cause(why)
        .hint("`openssl pkey -in FILE -out PLAIN.key` writes a form that can be read")
}

fn not_p256(why: &str) -> Error {
    Error::with_kind(Kind::Unsupported, "can't sign with this key")
        .cause(why)
        .cause("signing needs an ECDSA key on the curve P-256, as cosign makes them")
        .hint("`rootling key generate NAME` makes one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)).unwrap()
    }

    fn read(name: &str, password: &str) -> Result<PrivateKey> {
        PrivateKey::read(&file(name), &mut || Ok(password.to_owned()))
    }

    #[test]
    fn reads_keys_of_other_programs() {
        for (private, password, public) in
            [("pkcs8.key", "", "pkcs8.pub"), ("sec1.key", "", "pkcs8.pub"), ("cosign.key", "hello", "pkcs8.pub")]
        {
            let key = read(private, password).unwrap_or_else(|e| panic!("{private}: {e}"));
            assert_eq!(key.public(), PublicKey::read(&file(public)).unwrap(), "{private}");
        }
        assert_eq!(read("cosign.key", "Hello").err().map(|e| e.kind()), Some(Kind::Denied));
    }

    #[test]
    fn checks_what_openssl_signed() {
        for kind in ["pkcs8", "p384", "rsa", "ed25519"] {
            let key = PublicKey::read(&file(&format!("{kind}.pub"))).unwrap();
            let signature = file(&format!("{kind}.sig"));
            assert!(key.verifies(b"message\n", &signature), "{kind}");
            assert!(!key.verifies(b"massage\n", &signature), "{kind}");
            assert!(!key.verifies(b"message\n", &signature[1..]), "{kind}");
        }
    }

    #[test]
    fn makes_pairs() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::read(key.to_pem("p").unwrap().as_bytes(), &mut || Ok("p".into())).unwrap();
        let public = PublicKey::read(key.public().to_pem().as_bytes()).unwrap();
        assert!(public.verifies(b"text", &again.sign(b"text").unwrap()));
        assert_ne!(public, PrivateKey::generate().unwrap().public());
    }

    #[test]
    fn says_what_is_wrong() {
        let mut none = || Ok(String::new());
        for (text, expected) in [
            (&b""[..], "no private key"),
            (b"\xff", "no private key"),
            (&file("pkcs8.pub"), "public key"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "can't sign"),
            (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "can't be read"),
            (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", "can't sign"),
        ] {
            let error = PrivateKey::read(text, &mut none).err().unwrap();
            assert!(error.what().contains(expected), "{error}");
        }
        for (text, expected) in [
            (&b""[..], "no public key"),
            (&file("pkcs8.key"), "private key"),
            (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "can't be read"),
        ] {
            let error = PublicKey::read(text).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
        }
    }
}
