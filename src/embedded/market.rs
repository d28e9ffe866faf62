//! Market data out of nothing: the same seed gives the same events, on every run and machine.
//!
//! Quotes and trades of `keys` quote lines. A quote line is one participant's offers in one symbol on one venue, so
//! symbol and venue follow from the key, and prices of a symbol walk together. Events are encoded straight into the
//! Confluent wire format (`schemas/market_event.avsc`, `schemas/market_key.avsc`), because a benchmark that spends its
//! time in its own generator measures nothing.

mod choice;

use self::choice::Choice;

/// The Avro schema of the values: `schemas/market_event.avsc`.
pub const VALUE_SCHEMA: &str = include_str!("../../schemas/market_event.avsc");
/// The Avro schema of the keys: `schemas/market_key.avsc`.
pub const KEY_SCHEMA: &str = include_str!("../../schemas/market_key.avsc");

/// Milliseconds of the first event unless [`Market::starting_at`] says otherwise: 2026-01-05 14:30 UTC, when a
/// trading day opens in New York.
pub const FIRST_TS: i64 = 1_767_623_400_000;

/// Ticker and opening price in cents.
const INSTRUMENTS: [(&str, i64); 64] = [
    ("AAPL", 26_740),
    ("MSFT", 48_120),
    ("NVDA", 18_910),
    ("AMZN", 23_350),
    ("GOOGL", 31_480),
    ("META", 65_210),
    ("TSLA", 43_900),
    ("BRKB", 49_870),
    ("AVGO", 34_610),
    ("LLY", 107_300),
    ("JPM", 32_540),
    ("V", 34_990),
    ("XOM", 12_060),
    ("UNH", 33_480),
    ("MA", 57_120),
    ("JNJ", 20_670),
    ("COST", 89_300),
    ("HD", 34_780),
    ("PG", 14_390),
    ("WMT", 11_240),
    ("NFLX", 9_130),
    ("BAC", 5_540),
    ("CRM", 25_860),
    ("ORCL", 19_730),
    ("KO", 6_940),
    ("AMD", 22_180),
    ("PEP", 14_260),
    ("CVX", 15_380),
    ("TMO", 59_210),
    ("LIN", 42_730),
    ("MCD", 30_540),
    ("CSCO", 7_690),
    ("ABT", 12_480),
    ("ACN", 26_970),
    ("ADBE", 34_120),
    ("WFC", 9_420),
    ("GE", 31_650),
    ("IBM", 29_480),
    ("QCOM", 17_340),
    ("TXN", 17_790),
    ("CAT", 59_860),
    ("INTU", 63_140),
    ("VZ", 4_060),
    ("DIS", 11_390),
    ("AMGN", 32_830),
    ("PFE", 2_520),
    ("NOW", 15_290),
    ("GS", 91_470),
    ("NEE", 8_110),
    ("UBER", 8_260),
    ("SPGI", 52_350),
    ("RTX", 18_630),
    ("T", 2_450),
    ("ISRG", 56_930),
    ("LOW", 24_310),
    ("HON", 19_560),
    ("PLTR", 17_780),
    ("INTC", 3_940),
    ("BKNG", 532_400),
    ("BA", 22_790),
    ("MU", 31_540),
    ("ADI", 27_680),
    ("SBUX", 8_420),
    ("NKE", 6_310),
];
/// Market identifier codes.
const VENUES: [&str; 8] = ["XNAS", "XNYS", "ARCX", "BATS", "EDGX", "IEXG", "MEMX", "XCHI"];
/// Quotes are far more frequent than trades.
const TRADE_SHARE: f64 = 0.1;
/// A walk that falls to a dollar turns round, so that a bid is always positive.
const CENTS_MIN: i64 = 100;
/// How far behind its time a late event is, at most.
const LATE_MS_MAX: u64 = 2_000;

/// What kind of event this is; the order is that of the enum's symbols in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// An offer to buy and one to sell.
    Quote,
    /// A deal.
    Trade,
}

impl EventType {
    /// The symbol in the Avro schema.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            EventType::Quote => "QUOTE",
            EventType::Trade => "TRADE",
        }
    }
}

/// The fields of a value before they are encoded: what a test expects to find in the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// Ticker.
    pub symbol: &'static str,
    /// Quote line; the key.
    pub id: i64,
    /// Quote or trade.
    pub event_type: EventType,
    /// Dollars per share; of trades.
    pub price: Option<f64>,
    /// Dollars per share; of quotes, and below `ask`.
    pub bid: Option<f64>,
    /// Dollars per share; of quotes.
    pub ask: Option<f64>,
    /// Shares traded, or offered by a quote that is more than indicative.
    pub qty: Option<i64>,
    /// Market identifier code.
    pub venue: &'static str,
    /// Milliseconds since 1970.
    pub ts: i64,
}

/// One record for Kafka. The bytes are borrowed from the generator: copy or send them before the next event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// Quote line.
    pub id: i64,
    /// Confluent wire format of the key schema.
    pub key: &'a [u8],
    /// Confluent wire format of the value schema; none is a tombstone: the row of this key goes.
    pub value: Option<&'a [u8]>,
    /// Record timestamp in milliseconds since 1970; equals the `ts` of the value.
    pub ts: i64,
    /// What `value` encodes.
    pub tick: Option<Tick>,
}

/// A reproducible stream of market data.
#[derive(Debug, Clone)]
pub struct Market {
    random: Random,
    choice: Choice,
    delete_below: u64,
    late_below: u64,
    mid_cents: [i64; INSTRUMENTS.len()],
    micros: i64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Market {
    /// Events over `keys` quote lines (0 is taken as 1), every one as likely as any other; `delete_share` of them
    /// (0.0–1.0) are tombstones. Schema ids are 1 for the value and 2 for the key until
    /// [`with_schema_ids`](Self::with_schema_ids) says what the registry answered.
    #[must_use]
    pub fn new(seed: u64, keys: u64, delete_share: f64) -> Market {
        let market = Market {
            random: Random(seed),
            choice: Choice::uniform(keys.max(1)),
            delete_below: below(delete_share),
            late_below: 0,
            mid_cents: INSTRUMENTS.map(|(_, cents)| cents),
            micros: FIRST_TS * 1_000,
            key: Vec::with_capacity(16),
            value: Vec::with_capacity(96),
        };
        market.with_schema_ids(1, 2)
    }

    /// The ids that the registry gave to the value and the key schema.
    #[must_use]
    pub fn with_schema_ids(mut self, value: u32, key: u32) -> Market {
        header(&mut self.value, value);
        header(&mut self.key, key);
        self
    }

    /// Few keys get most events: the k-th most popular is chosen in proportion to 1/k^`exponent` (0.99 is what
    /// key-value benchmarks use; 0 or less is taken as uniform). Popular keys are spread over the key range.
    #[must_use]
    pub fn with_zipf(mut self, exponent: f64) -> Market {
        self.choice = Choice::zipf(self.choice.keys(), exponent);
        self
    }

    /// This share of events (0.0–1.0) carries a time up to two seconds before its turn, as if it had been held up.
    #[must_use]
    pub fn with_late_share(mut self, share: f64) -> Market {
        self.late_below = below(share);
        self
    }

    /// The first event happens at this time, in milliseconds since 1970.
    #[must_use]
    pub fn starting_at(mut self, ts: i64) -> Market {
        self.micros = ts.saturating_mul(1_000);
        self
    }

    /// The next event. The stream never ends.
    pub fn next_event(&mut self) -> Event<'_> {
        let id = self.choice.pick(&mut self.random);
        let bits = self.random.next();
        // Half of the bits decide about the deletion, the others about the content.
        let deletes = (bits & HALF) < self.delete_below;
        let dice = bits >> 32;
        // About 64 000 events per second of market time.
        self.micros += (dice & 31) as i64;
        let ts = self.micros / 1_000 - self.lateness();
        self.key.truncate(HEADER_LEN);
        put_long(&mut self.key, id);
        if deletes {
            return Event { id, key: &self.key, value: None, ts, tick: None };
        }
        let tick = self.tick(id, ts, dice >> 5);
        self.value.truncate(HEADER_LEN);
        encode(&mut self.value, &tick);
        Event { id, key: &self.key, value: Some(&self.value), ts, tick: Some(tick) }
    }

    fn lateness(&mut self) -> i64 {
        if self.late_below == 0 {
            return 0;
        }
        let bits = self.random.next();
        if (bits & HALF) < self.late_below { ((bits >> 32) % LATE_MS_MAX + 1) as i64 } else { 0 }
    }

    /// Moves the price of the key's symbol and says what its line shows now. Uses 27 bits of `dice`.
    fn tick(&mut self, id: i64, ts: i64, dice: u64) -> Tick {
        let instrument = id as usize % INSTRUMENTS.len();
        let mid = &mut self.mid_cents[instrument];
        *mid += (dice & 0xff) as i64 % 5 - 2;
        if *mid < CENTS_MIN {
            *mid = 2 * CENTS_MIN - *mid;
        }
        let half_spread = 1 + (dice >> 8 & 3) as i64;
        let (bid, ask) = (dollars(*mid - half_spread), dollars(*mid + half_spread));
        let trades = (dice >> 10 & 0xff) < (TRADE_SHARE * 256.0) as u64;
        let buys = dice >> 18 & 1 == 1;
        let lots = (dice >> 19 & 0xff) as i64 % 13;
        // A quote of no lots is indicative: it names prices and no quantity.
        let qty = if trades { Some(lots.max(1)) } else { (lots > 0).then_some(lots) };
        Tick {
            symbol: INSTRUMENTS[instrument].0,
            id,
            event_type: if trades { EventType::Trade } else { EventType::Quote },
            price: trades.then_some(if buys { ask } else { bid }),
            bid: (!trades).then_some(bid),
            ask: (!trades).then_some(ask),
            qty: qty.map(|lots| lots * 100),
            venue: VENUES[id as usize / INSTRUMENTS.len() % VENUES.len()],
            ts,
        }
    }
}

/// Magic byte and schema id.
const HEADER_LEN: usize = 5;
const HALF: u64 = u32::MAX as u64;

fn below(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * (HALF + 1) as f64) as u64
}

fn dollars(cents: i64) -> f64 {
    cents as f64 / 100.0
}

fn header(out: &mut Vec<u8>, schema_id: u32) {
    out.clear();
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

fn encode(out: &mut Vec<u8>, tick: &Tick) {
    put_string(out, tick.symbol);
    put_long(out, tick.id);
    put_long(out, tick.event_type as i64);
    put_optional_double(out, tick.price);
    put_optional_double(out, tick.bid);
    put_optional_double(out, tick.ask);
    match tick.qty {
        None => out.push(NULL),
        Some(qty) => {
            out.push(PRESENT);
            put_long(out, qty);
        }
    }
    put_string(out, tick.venue);
    put_long(out, tick.ts);
}

/// Branches of a `["null", T]` union.
const NULL: u8 = 0;
const PRESENT: u8 = 2;

fn put_optional_double(out: &mut Vec<u8>, value: Option<f64>) {
    match value {
        None => out.push(NULL),
        Some(value) => {
            let mut bytes = [PRESENT; 9];
            bytes[1..].copy_from_slice(&value.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// SplitMix64. Written out because the stream must stay the same when a library changes its generator.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// Spreads the bits of `value` so that neighbours end up far apart.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
