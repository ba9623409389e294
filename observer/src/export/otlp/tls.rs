//! TLS for `https` endpoints: rustls with the system's certificate authorities or those that were named.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::settings::Tls;

/// The configuration of a client; without `secure`, one that trusts nobody and reads no file.
pub(super) fn client_config(secure: bool, tls: &Tls) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &tls.certificate {
        Some(path) if secure => builder.with_root_certificates(authorities(path)?),
        None if secure => builder
            .with_native_roots()
            .context("no certificate authorities on this system; name some with OTEL_EXPORTER_OTLP_CERTIFICATE")?,
        _ => builder.with_root_certificates(RootCertStore::empty()),
    };
    match &tls.client {
        Some((certificate, key)) if secure => {
            let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
            Ok(builder.with_client_auth_cert(certificates(certificate)?, key)?)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| path.display().to_string())?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().with_context(|| path.display().to_string())?;
    anyhow::ensure!(!certificates.is_empty(), "{}: no certificate in it", path.display());
    Ok(certificates)
}
