//! Trino's client protocol: POST a statement, follow `nextUri`, read typed JSON values.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rows::NULL;
use crate::stack::block_on;

/// No statement of a test may take longer.
const LIMIT: Duration = Duration::from_secs(180);

/// A Trino coordinator.
#[derive(Debug, Clone)]
pub struct Trino {
    /// Its address, `http://host:port`.
    pub url: String,
}

/// What a statement answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Types of the columns in Trino's spelling, `timestamp(6) with time zone`.
    pub types: Vec<String>,
    /// Values, rendered as in [`crate::rows`].
    pub rows: Vec<Vec<String>>,
}

impl Trino {
    /// The rows of a statement, rendered as in [`crate::rows`]. Panics with Trino's message when it fails.
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        self.answer(sql).rows
    }

    /// As [`Trino::query`], with the columns' names and types.
    pub fn answer(&self, sql: &str) -> Answer {
        self.try_answer(sql).unwrap_or_else(|message| panic!("trino: {message}\nin: {sql}"))
    }

    /// As [`Trino::answer`], for statements that are expected to fail.
    pub fn try_answer(&self, sql: &str) -> Result<Answer, String> {
        block_on(self.run(sql))
    }

    async fn run(&self, sql: &str) -> Result<Answer, String> {
        let client = reqwest::Client::new();
        let end = Instant::now() + LIMIT;
        let (mut answer, mut signatures) = (Answer::default(), Vec::new());
        let mut request = client.post(format!("{}/v1/statement", self.url)).body(sql.to_owned());
        loop {
            if Instant::now() > end {
                return Err(format!("no answer within {LIMIT:?}"));
            }
            let retry = request.try_clone();
            // without the capability Trino rounds every time and timestamp to milliseconds
            let request_with_user =
                request.header("X-Trino-User", "firn").header("X-Trino-Client-Capabilities", "PARAMETRIC_DATETIME");
            let response = request_with_user.send().await.map_err(|e| e.to_string())?;
            // the protocol's "ask again in a moment"
            if matches!(response.status().as_u16(), 502..=504) {
                tokio::time::sleep(Duration::from_millis(75)).await;
                request = retry.ok_or("the request cannot be repeated")?;
                continue;
            }
            if !response.status().is_success() {
                return Err(format!("{}: {}", response.status(), response.text().await.unwrap_or_default()));
            }
            let page: Value = response.json().await.map_err(|e| e.to_string())?;
            if let Some(error) = page.get("error") {
                return Err(error["message"].as_str().unwrap_or("an error without a message").to_owned());
            }
            if let Some(columns) = page["columns"].as_array() {
                let name = |key: &str, column: &Value| column[key].as_str().unwrap_or_default().to_owned();
                answer.columns = columns.iter().map(|column| name("name", column)).collect();
                answer.types = columns.iter().map(|column| name("type", column)).collect();
                signatures = columns.iter().map(|column| column["typeSignature"].clone()).collect();
            }
            for row in page["data"].as_array().into_iter().flatten() {
                let cells = row.as_array().into_iter().flatten().zip(&signatures);
                answer.rows.push(cells.map(|(value, signature)| text(signature, value, false)).collect());
            }
            match page["nextUri"].as_str() {
                Some(next) => request = client.get(next),
                None => return Ok(answer),
            }
        }
    }
}

/// A value of the JSON protocol as canonical text, by its type signature.
fn text(signature: &Value, value: &Value, nested: bool) -> String {
    let raw = signature["rawType"].as_str().unwrap_or_default();
    let argument = |index: usize| &signature["arguments"][index]["value"];
    match value {
        Value::Null => NULL.to_owned(),
        Value::Array(items) if raw == "array" => {
            let items: Vec<_> = items.iter().map(|item| text(argument(0), item, true)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Array(fields) if raw == "row" => {
            let fields: Vec<_> =
                fields.iter().enumerate().map(|(i, field)| text(&argument(i)["typeSignature"], field, true)).collect();
            format!("({})", fields.join(", "))
        }
        Value::Object(pairs) if raw == "map" => {
            let key = |key: &str| text(argument(0), &Value::String(key.to_owned()), true);
            let mut pairs: Vec<_> =
                pairs.iter().map(|(k, v)| format!("{}={}", key(k), text(argument(1), v, true))).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::String(value) => match raw {
            "varbinary" => hex(&base64(value)),
            // the protocol writes NaN and the infinities as strings, and so it does with a map's keys
            "real" | "double" => number(raw, value),
            "varchar" | "char" | "json" if nested => Value::String(value.clone()).to_string(),
            _ => value.clone(),
        },
        Value::Number(value) if matches!(raw, "real" | "double") => number(raw, &value.to_string()),
        value => value.to_string(),
    }
}

fn number(raw: &str, value: &str) -> String {
    let text = match raw {
        "real" => value.parse::<f32>().map(|value| format!("{value:?}")),
        _ => value.parse::<f64>().map(|value| format!("{value:?}")),
    };
    match text {
        Ok(text) => text.replace("inf", "Infinity"),
        Err(_) => value.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for symbol in text.bytes().filter_map(|byte| ALPHABET.iter().position(|&letter| letter == byte)) {
        bits = bits << 6 | u32::try_from(symbol).unwrap_or(0);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
