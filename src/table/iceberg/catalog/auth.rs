//! Tokens for a REST catalog: OAuth2 client credentials, or a bearer token as it is.
//!
//! A token is fetched when a request needs one and the old one is about to expire. There is no refresh chain that one
//! failed cycle could end: each request tries anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::rest::read_body;
use crate::error::{Error, Result};

const TOKEN_BODY_BYTES_MAX: usize = 1 << 20;
/// Tokens of servers that do not say how long they last are fetched again after this time.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// How requests prove who they are.
pub(super) enum Auth {
    /// The server asks for nothing.
    None,
    /// A token that somebody else renews.
    Bearer(SecretString),
    /// OAuth2 client credentials.
    Client(Box<Client>),
}

pub(super) struct Client {
    http: reqwest::Client,
    address: String,
    id: Option<String>,
    secret: SecretString,
    /// `scope`, `audience` and `resource`.
    parameters: Vec<(&'static str, String)>,
    token: Mutex<Option<Token>>,
}

struct Token {
    text: SecretString,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Auth {
    /// What `properties` ask for; `address` is the catalog's own, before `/v1`.
    pub(super) fn new(http: &reqwest::Client, address: &str, properties: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| properties.get(name).filter(|v| !v.is_empty());
        if let Some(credential) = get("credential") {
            let (id, secret) = match credential.split_once(':') {
                Some((id, secret)) => (Some(id.to_owned()), secret),
                None => (None, credential.as_str()),
            };
            let mut parameters = vec![("scope", get("scope").map_or("catalog", String::as_str).to_owned())];
            for name in ["audience", "resource"] {
                parameters.extend(get(name).map(|value| (name, value.clone())));
            }
            let own = format!("{address}/v1/oauth/tokens");
            return Auth::Client(Box::new(Client {
                http: http.clone(),
                address: get("oauth2-server-uri").cloned().unwrap_or(own),
                id,
                secret: SecretString::from(secret),
                parameters,
                token: Mutex::new(None),
            }));
        }
        match get("token") {
            Some(token) => Auth::Bearer(SecretString::from(token.as_str())),
            None => Auth::None,
        }
    }

    /// The bearer token to send now, fetched if need be.
    pub(super) async fn token(&self) -> Result<Option<SecretString>> {
        match self {
            Auth::None => Ok(None),
            Auth::Bearer(token) => Ok(Some(token.clone())),
            Auth::Client(client) => client.token().await.map(Some),
        }
    }

    /// The server refused `token`: the next request fetches another one. False where no other one can be had.
    pub(super) async fn refused(&self, token: Option<&SecretString>) -> bool {
        let Auth::Client(client) = self else { return false };
        let mut held = client.token.lock().await;
        let same = |t: &Token| token.is_some_and(|r| r.expose_secret() == t.text.expose_secret());
        if held.as_ref().is_some_and(same) {
            *held = None;
        }
        true
    }
}

impl Client {
    async fn token(&self) -> Result<SecretString> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|t| Instant::now() < t.renew_at) {
            return Ok(token.text.clone());
        }
        let token = self.fetch().await?;
        let text = token.text.clone();
        *held = Some(token);
        Ok(text)
    }

    async fn fetch(&self) -> Result<Token> {
        let failed = |why: String| Error::Unreachable(format!("no token from {}: {why}", self.address));
        let mut form = vec![("grant_type", "client_credentials"), ("client_secret", self.secret.expose_secret())];
        form.extend(self.id.as_deref().map(|id| ("client_id", id)));
        form.extend(self.parameters.iter().map(|(name, value)| (*name, value.as_str())));
        let asked = Instant::now();
        let answer = self.http.post(&self.address).form(&form).send().await;
        let answer = answer.map_err(|e| failed(e.without_url().to_string()))?;
        let status = answer.status();
        // The body of a refusal may repeat what was sent, so it is never shown.
        if !status.is_success() {
            return Err(failed(format!("it answered {status}; check the credential, the scope and oauth2-server-uri")));
        }
        let body = read_body(answer, TOKEN_BODY_BYTES_MAX).await.map_err(failed)?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| failed("it sent no token".into()))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // A quarter of its life, at most a minute, is left when it is renewed.
        let margin = (life / 4).min(Duration::from_secs(60));
        Ok(Token { text: SecretString::from(answer.access_token), renew_at: asked + life.saturating_sub(margin) })
    }
}
