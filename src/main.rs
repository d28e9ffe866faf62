//! The command line: flags in, one library call, text and an exit code out.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use firn::commands::{
    self, BrokerArgs, CheckArgs, DeadLettersReplayArgs, DeadLettersShowArgs, DemoArgs, GetArgs, OffsetsSetArgs,
    OffsetsShowArgs, PartitionOffset, RunArgs, SqlArgs, TopicSpec, VerdictArgs,
};
use firn::query::Format;
use firn::settings::{LogFormat, Role, Settings};
use firn::{Error, Result};
use tracing_subscriber::EnvFilter;

// librdkafka's malloc under two busy threads doubles the consumer's CPU with the system allocator.
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps Iceberg tables current with Avro events on Kafka: one row per key, exactly once, always query-ready.
#[derive(Debug, Parser)]
#[command(name = "firn", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// How log lines on stderr look [default: what `observe.log` says for run, else text]
    #[arg(long, value_enum, global = true)]
    log: Option<Log>,
    /// Which log lines, as `level` or `target=level,…` [default: info for run and broker, else warn]
    #[arg(long = "log-filter", env = "FIRN_LOG", global = true, value_name = "FILTER", hide_env_values = true)]
    filter: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
struct Config {
    /// The settings file
    #[arg(short, long, value_name = "FILE", default_value = "firn.yaml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process: produce market data, upsert it, query it
    Demo {
        /// Where data goes, and a firn.yaml with which the other commands work on the demo's tables
        #[arg(long, default_value = "./firn-demo")]
        dir: PathBuf,
        /// End after the first answers
        #[arg(long)]
        exit: bool,
        /// How many events to produce
        #[arg(long, hide = true)]
        events: Option<u64>,
    },
    /// Keep the tables current until SIGTERM
    Run {
        #[command(flatten)]
        config: Config,
        /// End with 0 once every partition has reached the end seen at start
        #[arg(long)]
        until_caught_up: bool,
        /// Run only these of the configured roles
        #[arg(long, value_delimiter = ',', value_name = "ROLE")]
        roles: Vec<Role>,
    },
    /// Query the tables
    Sql {
        #[command(flatten)]
        config: Config,
        /// How rows are printed
        #[arg(long, value_enum, default_value_t = SqlFormat::Table)]
        format: SqlFormat,
        /// One statement; without it, a prompt
        query: Option<String>,
    },
    /// Print the current row of a key; exit 1 when there is none
    Get {
        #[command(flatten)]
        config: Config,
        /// catalog.namespace.table
        table: String,
        /// One value per key column
        #[arg(required = true, allow_negative_numbers = true)]
        values: Vec<String>,
    },
    /// Validate the file, reach every server, compare schemas with tables
    Check {
        #[command(flatten)]
        config: Config,
        /// Print the settings in effect, without secrets
        #[arg(short, long)]
        verbose: bool,
    },
    /// The position of each table in the log
    Offsets {
        #[command(subcommand)]
        command: Offsets,
    },
    /// What a schema would do to the tables, before it is registered
    Schema {
        #[command(subcommand)]
        command: Schema,
    },
    /// Rejected records: look at them, submit them again
    DeadLetters {
        #[command(subcommand)]
        command: DeadLetters,
    },
    /// Serve the embedded broker and registry, for development
    Broker {
        /// Where the schema registry listens
        #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
        registry_listen: SocketAddr,
        /// A topic to create; may be repeated
        #[arg(long = "topic", value_name = "NAME:PARTITIONS")]
        topics: Vec<TopicSpec>,
    },
}

#[derive(Debug, Subcommand)]
enum Schema {
    /// Say what would become of each table; exit 0 when all can hold its rows, 1 when one cannot
    Verdict {
        #[command(flatten)]
        config: Config,
        /// The pipeline that writes the tables
        #[arg(long)]
        pipeline: String,
        /// How the verdict is printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
        format: ReportFormat,
        /// The Avro schema of the values; without it, the newest of the registry's subject
        schema: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum DeadLetters {
    /// List them by reason, with samples
    Show {
        #[command(flatten)]
        config: Config,
        /// The pipeline that rejected them
        #[arg(long)]
        pipeline: String,
        /// How many of each reason to name
        #[arg(long, default_value_t = 3)]
        samples: usize,
        /// How they are printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
        format: ReportFormat,
    },
    /// Submit again those that can be rows by now; exit 1 when some are refused
    Replay {
        #[command(flatten)]
        config: Config,
        /// The pipeline that rejected them
        #[arg(long)]
        pipeline: String,
        /// Only letters of this reason; may be repeated
        #[arg(long = "reason", value_name = "REASON")]
        reasons: Vec<String>,
        /// Only say what would be submitted
        #[arg(long)]
        dry_run: bool,
        /// How the outcome is printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
        format: ReportFormat,
    },
}

#[derive(Debug, Subcommand)]
enum Offsets {
    /// Print the position of each table and its lag
    Show {
        #[command(flatten)]
        config: Config,
        /// How the positions are printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
        format: ReportFormat,
    },
    /// Set positions by an empty commit that carries the reason
    Set {
        #[command(flatten)]
        config: Config,
        /// The pipeline that writes the tables
        #[arg(long)]
        pipeline: String,
        /// Only this table, catalog.namespace.table
        #[arg(long)]
        table: Option<String>,
        /// The next offset to read; may be repeated
        #[arg(long = "partition", value_name = "TOPIC/PARTITION=OFFSET")]
        positions: Vec<PartitionOffset>,
        /// Accept the position that the table property has, where the history that held it is gone
        #[arg(long, conflicts_with = "new_epoch")]
        from_property: bool,
        /// The topic was created again, or the brokers are another cluster: begin anew, at the log's first offset or where
        /// --partition says
        #[arg(long)]
        new_epoch: bool,
        /// Take offsets that the log does not have
        #[arg(long)]
        force: bool,
        /// The schema id means another schema by now, with which everything that is left to read was written; may be
        /// repeated
        #[arg(long = "accept-schema", value_name = "ID")]
        accept_schemas: Vec<u32>,
        /// Why, kept in the table's history
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReportFormat {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SqlFormat {
    Table,
    Csv,
    Json,
    Parquet,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Pipe { inner: io::stdout(), closed: false };
    match execute(cli, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough (`firn sql … | head`): not a fault.
        Err(_) if out.closed => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done when stderr is gone too.
            let _ = writeln!(io::stderr(), "firn: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(cli: Cli, out: commands::Output<'_>) -> Result<()> {
    // How `run` logs is in its settings.
    let settings = match &cli.command {
        Command::Run { config: Config { config }, .. } => Some(Settings::load(config)?),
        _ => None,
    };
    start_logging(&cli, settings.as_ref().map_or(LogFormat::Text, |settings| settings.observe.log))?;
    let runtime = runtime()?;
    let ended = runtime.block_on(dispatch(cli.command, settings, out));
    // A prompt's reading thread must not hold the process.
    runtime.shutdown_background();
    ended
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::Unreachable(format!("cannot start threads: {e}")))
}

/// Carries a command out, with the settings where they were needed before.
async fn dispatch(command: Command, settings: Option<Settings>, out: commands::Output<'_>) -> Result<()> {
    match command {
        Command::Demo { dir, exit, events } => commands::demo(DemoArgs { dir, exit, events }, out).await,
        Command::Run { config: Config { config }, until_caught_up, roles } => {
            let settings = settings.map_or_else(|| Settings::load(&config), Ok)?;
            commands::run(RunArgs { settings, until_caught_up, roles }).await
        }
        Command::Sql { config: Config { config }, format, query } => {
            commands::sql(SqlArgs { config, format: format.into(), query }, out).await
        }
        Command::Get { config: Config { config }, table, values } => {
            commands::get(GetArgs { config, table, values }, out).await
        }
        Command::Check { config: Config { config }, verbose } => {
            commands::check(CheckArgs { config, verbose }, out).await
        }
        Command::Offsets { command } => offsets(command, out).await,
        Command::DeadLetters { command } => dead_letters(command, out).await,
        Command::Schema { command: Schema::Verdict { config: Config { config }, pipeline, format, schema } } => {
            commands::schema_verdict(VerdictArgs { config, pipeline, schema, format: format.into() }, out).await
        }
        Command::Broker { registry_listen, topics } => {
            commands::broker(BrokerArgs { registry_listen, topics }, out).await
        }
    }
}

async fn dead_letters(command: DeadLetters, out: commands::Output<'_>) -> Result<()> {
    match command {
        DeadLetters::Show { config: Config { config }, pipeline, samples, format } => {
            let args = DeadLettersShowArgs { config, pipeline, samples, format: format.into() };
            commands::dead_letters_show(args, out).await
        }
        DeadLetters::Replay { config: Config { config }, pipeline, reasons, dry_run, format } => {
            let args = DeadLettersReplayArgs { config, pipeline, reasons, dry_run, format: format.into() };
            commands::dead_letters_replay(args, out).await
        }
    }
}

async fn offsets(command: Offsets, out: commands::Output<'_>) -> Result<()> {
    match command {
        Offsets::Show { config: Config { config }, format } => {
            commands::offsets_show(OffsetsShowArgs { config, format: format.into() }, out).await
        }
        Offsets::Set {
            config,
            pipeline,
            table,
            positions,
            from_property,
            new_epoch,
            force,
            accept_schemas,
            reason,
        } => {
            let config = config.config;
            let args = OffsetsSetArgs {
                config,
                pipeline,
                table,
                positions,
                from_property,
                new_epoch,
                force,
                accept_schemas,
                reason,
            };
            commands::offsets_set(args, out).await
        }
    }
}

impl From<ReportFormat> for Format {
    fn from(format: ReportFormat) -> Self {
        match format {
            ReportFormat::Table => Format::Table,
            ReportFormat::Json => Format::Json,
        }
    }
}

impl From<SqlFormat> for Format {
    fn from(format: SqlFormat) -> Self {
        match format {
            SqlFormat::Table => Format::Table,
            SqlFormat::Csv => Format::Csv,
            SqlFormat::Json => Format::Json,
            SqlFormat::Parquet => Format::Parquet,
        }
    }
}

/// Sends log lines to stderr: stdout is for answers.
fn start_logging(cli: &Cli, configured: LogFormat) -> Result<()> {
    let default = match cli.command {
        Command::Run { .. } | Command::Broker { .. } => "info",
        _ => "warn",
    };
    let filter = cli.filter.as_deref().filter(|filter| !filter.is_empty()).unwrap_or(default);
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| Error::Config(format!("FIRN_LOG is no log filter: {e}; write one like info or firn=debug")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let format = match cli.log {
        Some(Log::Text) => LogFormat::Text,
        Some(Log::Json) => LogFormat::Json,
        None => configured,
    };
    let started = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Error::Internal(format!("logging cannot start: {e}")))
}

/// Standard output that remembers when its reader has gone.
struct Pipe {
    inner: io::Stdout,
    closed: bool,
}

impl Pipe {
    fn noting<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.closed |= matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.noting(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.noting(result)
    }
}
