//! The curves as a picture: CPU time per message over what grows, one panel for each scenario, both axes in equal ratios.

use std::fmt::Write as _;

use crate::{
    args::{Scenario, grouped},
    broker::Kind,
};

const PANEL_WIDTH: f64 = 360.0;
const PANEL_HEIGHT: f64 = 240.0;
const PANELS_A_ROW: usize = 2;
/// Around the curves of a panel, for its title, its numbers and what stands below it.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
const LEGEND_HEIGHT: f64 = 30.0;

/// Everything drawn so far.
#[derive(Default)]
pub(crate) struct Picture {
    curves: Vec<Curve>,
}

struct Curve {
    scenario: Scenario,
    kind: Kind,
    qos: Qos,
    points: Vec<(u32, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Qos {
    Zero,
    One,
}

impl Picture {
    /// A value of a table. What is no cost of a message is not drawn.
    pub(crate) fn add(&mut self, scenario: Scenario, kind: Kind, column: &str, size: u32, value: f64) {
        let qos = match column {
            "QoS 0: CPU us/message" => Qos::Zero,
            "QoS 1: CPU us/message" => Qos::One,
            _ => return,
        };
        if !(value.is_finite() && value > 0.0) {
            return;
        }
        let is_it = |curve: &Curve| curve.scenario == scenario && curve.kind == kind && curve.qos == qos;
        match self.curves.iter_mut().find(|curve| is_it(curve)) {
            Some(curve) => curve.points.push((size, value)),
            None => self.curves.push(Curve { scenario, kind, qos, points: vec![(size, value)] }),
        }
    }

    /// All of it.
    pub(crate) fn svg(&self) -> String {
        let mut scenarios: Vec<Scenario> = self.curves.iter().map(|curve| curve.scenario).collect();
        scenarios.dedup();
        let rows = scenarios.len().div_ceil(PANELS_A_ROW);
        let (width, height) =
            (PANEL_WIDTH * number(PANELS_A_ROW), PANEL_HEIGHT * number(rows) + LEGEND_HEIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        self.legend(&mut svg);
        for (at, &scenario) in scenarios.iter().enumerate() {
            let (x, y) = (
                PANEL_WIDTH * number(at % PANELS_A_ROW),
                PANEL_HEIGHT * number(at / PANELS_A_ROW) + LEGEND_HEIGHT,
            );
            let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            self.panel(scenario, &mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut x = LEFT;
        let mut named = Vec::new();
        for curve in &self.curves {
            if named.contains(&(curve.kind, curve.qos)) {
                continue;
            }
            named.push((curve.kind, curve.qos));
            let (style, text) = (curve.style(), curve.name());
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"16\" x2=\"{}\" y2=\"16\" {style}/><text x=\"{}\" y=\"20\">{text}</text>",
                x + 24.0,
                x + 30.0
            );
            x += 140.0;
        }
    }

    fn panel(&self, scenario: Scenario, svg: &mut String) {
        let curves = || self.curves.iter().filter(|curve| curve.scenario == scenario);
        let values = || curves().flat_map(|curve| &curve.points).map(|&(_, value)| value.log10());
        // Whole decades.
        let low = values().fold(f64::INFINITY, f64::min).floor();
        let high = values().fold(f64::NEG_INFINITY, f64::max).ceil().max(low + 1.0);
        let mut sizes: Vec<u32> = curves().flat_map(|curve| &curve.points).map(|&(size, _)| size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let place = |size: u32| sizes.iter().position(|&one| one == size).unwrap_or(0);
        let x = |size: u32| {
            LEFT + (PANEL_WIDTH - LEFT - RIGHT) * number(place(size)) / number(sizes.len().max(2) - 1)
        };
        let y = |log: f64| TOP + (PANEL_HEIGHT - TOP - BOTTOM) * (high - log) / (high - low);

        let title = scenario.title().replace("->", "to");
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{title}</text>");
        let mut decade = low;
        while decade <= high {
            let (at, right) = (y(decade), PANEL_WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} us</text>",
                LEFT - 6.0,
                at + 4.0,
                10_f64.powf(decade)
            );
            decade += 1.0;
        }
        for &size in &sizes {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(size),
                PANEL_HEIGHT - BOTTOM + 18.0,
                grouped(size)
            );
        }
        for curve in curves() {
            let mut path = String::new();
            for &(size, value) in &curve.points {
                let _ = write!(path, "{:.1},{:.1} ", x(size), y(value.log10()));
            }
            let _ =
                writeln!(svg, "<polyline points=\"{}\" fill=\"none\" {}/>", path.trim_end(), curve.style());
        }
    }
}

impl Curve {
    fn name(&self) -> String {
        let qos = if self.qos == Qos::Zero { "QoS 0" } else { "QoS 1" };
        format!("{}, {qos}", self.kind.name())
    }

    /// A colour for the broker, dashes for `QoS` 0.
    fn style(&self) -> String {
        let colour = match self.kind {
            Kind::Dormouse => "#0b6e4f",
            Kind::Mosquitto => "#c44900",
            Kind::Rumqttd => "#5b5ea6",
            Kind::Rmqttd => "#c2185b",
        };
        let dashes = if self.qos == Qos::Zero { " stroke-dasharray=\"5 3\"" } else { "" };
        format!("stroke=\"{colour}\" stroke-width=\"2\"{dashes}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of panels and sizes")]
fn number(count: usize) -> f64 {
    count as f64
}
