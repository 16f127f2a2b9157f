// What Grafana reads, as @grafana/schema declares it, and told apart by panel type: a board that
// names a field or a value which its schema does not have is not assignable to `Board`.
import type {
  AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel, VariableModel,
} from '@grafana/schema';
import type * as Gauge from '@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen';
import type * as Heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as Table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the values of enumerations, not their names.
type Plain<T> =
  T extends string ? `${T}` :
  T extends number | boolean | null | undefined ? T :
  T extends (infer Item)[] ? Plain<Item>[] :
  T extends object ? { [Key in keyof T]: Plain<T[Key]> } :
  T;

type Query = {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  legendFormat: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  range: boolean;
  editorMode: 'code';
};

type Link = { title: string; url: string; targetBlank: boolean };

type Property<Custom> =
  | { id: 'links'; value: Link[] }
  | { id: 'thresholds'; value: NonNullable<Plain<FieldConfig>['thresholds']> }
  | { id: 'color'; value: NonNullable<Plain<FieldConfig>['color']> }
  | (Custom extends { cellOptions: infer Cell } ? { id: 'custom.cellOptions'; value: Cell } : never);

type Kind<Type extends string, Options, Custom> =
  Omit<Plain<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
    type: Type;
    options: Plain<Options>;
    targets: Query[];
    fieldConfig: {
      defaults: Omit<Plain<FieldConfig>, 'custom'> & { custom: Plain<Custom> };
      overrides: {
        matcher: { id: 'byName'; options: string };
        properties: Property<Plain<Custom>>[];
      }[];
    };
  };

// Only types that Grafana has not deprecated are here: no `graph`, no `table-old`, no `singlestat`.
type AnyPanel =
  | Kind<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>
  | Kind<'stat', Stat.Options, Record<string, never>>
  | Kind<'gauge', Gauge.Options, Record<string, never>>
  | Kind<'heatmap', Heatmap.Options, Heatmap.FieldConfig>
  | Kind<'table', Table.Options, Table.FieldConfig>;

// What the Prometheus data source adds to an annotation.
type Annotation = Omit<Plain<AnnotationQuery>, 'target'> & {
  target: { refId: string; expr: string; interval: string };
  titleFormat: string;
  textFormat: string;
};

export type Board = Omit<Plain<Dashboard>, 'panels' | 'annotations' | 'templating'> & {
  panels: (AnyPanel | Plain<RowPanel>)[];
  annotations: { list: Annotation[] };
  templating: { list: Plain<VariableModel>[] };
};
