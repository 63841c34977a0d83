//! A real Prometheus, of Debian's package, that scrapes what it is told to and evaluates the chart's rules.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use crate::peers;
use crate::replica::until;

/// Who is scraped, and the labels that the chart's monitors would give it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it answers.
    pub address: SocketAddr,
    /// Its labels; `__scheme__` and `__metrics_path__` say how it is asked where that is not HTTP at `/metrics`.
    pub labels: BTreeMap<String, String>,
    /// Whether a label of a sample comes before one of the target that has its name.
    pub honor_labels: bool,
}

/// It, until it is dropped.
pub struct Prometheus {
    client: Client,
    work: TempDir,
    _process: Child,
}

impl Prometheus {
    /// Starts it with a document of rules and nobody to scrape. Samples are taken four times a second, rules evaluated every
    /// second.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(rules: &Value) -> Result<Self> {
        let work = tempfile::tempdir()?;
        fs::write(work.path().join("rules.yaml"), rules.to_string())?;
        fs::write(work.path().join("prometheus.yaml"), configuration().to_string())?;
        write_targets(work.path(), &[])?;
        // Found free a moment ago; a loser of that race does not come up, and says so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let listen = format!("--web.listen-address={address}");
        let data = "--storage.tsdb.path=/work/data";
        let program =
            ["prometheus", "--config.file=/work/prometheus.yaml", data, &listen, "--log.level=warn"];
        let process = peers::command(work.path(), &program)?.spawn()?;
        let client = Client::try_from(Config::new(format!("http://{address}").parse()?))?;
        let prometheus = Self { client, work, _process: process };
        until(async || prometheus.query("vector(1)").await.map(drop))
            .await
            .context("Prometheus does not answer")?;
        Ok(prometheus)
    }

    /// Scrapes these and no others from now on, and waits until each has been scraped a few times.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn scrape(&self, targets: &[Target]) -> Result<()> {
        write_targets(self.work.path(), targets)?;
        until(async || {
            let scraped = self.query("count_over_time((up == 1)[1m:250ms]) >= 4").await?;
            let of = |row: &Value| row["metric"]["instance"].as_str().map(str::to_owned);
            let scraped: Vec<_> = scraped.iter().filter_map(of).collect();
            let missing = targets.iter().find(|target| !scraped.contains(&target.address.to_string()));
            ensure!(missing.is_none(), "not scraped: {missing:?}");
            Ok(())
        })
        .await
    }

    /// The rows of an instant query, those that are not a number left out.
    ///
    /// # Errors
    /// When the expression is refused.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await;
        let answer = answer.with_context(|| expression.to_owned())?;
        let rows = answer["data"]["result"].as_array().with_context(|| format!("{expression}: {answer}"))?;
        Ok(rows.iter().filter(|row| row["value"][1] != "NaN").cloned().collect())
    }

    /// The series of a query over a time, a hundred and twenty points of each; times are seconds since the epoch.
    ///
    /// # Errors
    /// When the expression is refused.
    pub async fn range(&self, expression: &str, start: f64, end: f64) -> Result<Vec<Value>> {
        let (query, step) = (encoded(expression), (end - start) / 120.0);
        let path = format!("/api/v1/query_range?query={query}&start={start:.3}&end={end:.3}&step={step:.3}");
        let answer = self.get(&path).await.with_context(|| expression.to_owned())?;
        let series =
            answer["data"]["result"].as_array().with_context(|| format!("{expression}: {answer}"))?;
        Ok(series.clone())
    }

    /// The alerts that fire or wait to, with their texts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/alerts").await?;
        Ok(answer["data"]["alerts"].as_array().cloned().unwrap_or_default())
    }

    /// The type of each metric, as whoever has it says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn types(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.get("/api/v1/metadata").await?;
        let metrics = answer["data"].as_object().context("metadata")?;
        let of =
            |(metric, said): (&String, &Value)| Some((metric.clone(), said[0]["type"].as_str()?.to_owned()));
        Ok(metrics.iter().filter_map(of).collect())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.client.request(hyper::Request::get(path).body(Vec::new())?).await?)
    }
}

fn configuration() -> Value {
    let scrape = |honor_labels| {
        let name = job(honor_labels);
        let found = json!({"files": [format!("/work/{name}.json")], "refresh_interval": "1s"});
        json!({"job_name": name, "honor_labels": honor_labels, "file_sd_configs": [found]})
    };
    json!({
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"},
        "rule_files": ["/work/rules.yaml"],
        "scrape_configs": [scrape(false), scrape(true)],
    })
}

fn job(honor_labels: bool) -> &'static str {
    if honor_labels { "honored" } else { "mailroute" }
}

fn write_targets(folder: &Path, targets: &[Target]) -> io::Result<()> {
    let one = |target: &Target| json!({"targets": [target.address.to_string()], "labels": target.labels});
    for honor_labels in [false, true] {
        let groups = targets.iter().filter(|target| target.honor_labels == honor_labels).map(one);
        let text = Value::Array(groups.collect()).to_string();
        let new = folder.join("targets.new");
        fs::write(&new, text)?;
        fs::rename(&new, folder.join(format!("{}.json", job(honor_labels))))?;
    }
    Ok(())
}

/// As it stands in the query of a URL.
fn encoded(text: &str) -> String {
    let kept = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    let one = |octet: u8| if kept(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    text.bytes().map(one).collect()
}
