-- Views on the event lake, for DuckDB 2. To use them in plain duckdb:
--
--   SET VARIABLE lake = '.stack/lake';
--   .read analytics/views.sql
--   FROM latency_by_stage;
--
-- Optional, each time before a query: SET VARIABLE since = TIMESTAMP '2026-01-05', until, model (a
-- model's name), weak_score (0.2), bucket ('hour', 'day' …), switch_days (14). Times are UTC without
-- a zone. Read this file again to include newer files.

SET VARIABLE lake_generation = (
  SELECT getvariable('lake') || '/' || trim(content, chr(10) || ' ')
  FROM read_text(getvariable('lake') || '/CURRENT')
);

-- Without files that compaction has merged into another one: see analytics/lake.py.
CREATE OR REPLACE TEMP MACRO without_covered(paths) AS (
  SELECT list(path ORDER BY path) FROM (
    SELECT path, last, max(last) OVER (
      PARTITION BY part ORDER BY first, last DESC, path
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS covered FROM (
      SELECT path,
        coalesce(try_cast(regexp_extract(path, '-(\d+)-\d+-\d+\.parquet$', 1) AS BIGINT), -1) AS part,
        coalesce(try_cast(regexp_extract(path, '-(\d+)-\d+\.parquet$', 1) AS BIGINT), 0) AS first,
        coalesce(try_cast(regexp_extract(path, '-(\d+)\.parquet$', 1) AS BIGINT), 0) AS last
      FROM (SELECT unnest(paths) AS path)
    )
  ) WHERE covered IS NULL OR last > covered
);
SET VARIABLE searches_files = without_covered(
  (SELECT list(file) FROM glob(getvariable('lake_generation') || '/topic=searches/*/*.parquet')));
SET VARIABLE feedback_files = without_covered(
  (SELECT list(file) FROM glob(getvariable('lake_generation') || '/topic=feedback/*/*.parquet')));
SET VARIABLE indexed_files = without_covered(
  (SELECT list(file) FROM glob(getvariable('lake_generation') || '/topic=images.indexed/*/*.parquet')));
SET VARIABLE letters_files = without_covered(
  (SELECT list(file) FROM glob(getvariable('lake_generation') || '/topic=images.dlq/*/*.parquet')));
SET VARIABLE models_files = without_covered(
  (SELECT list(file) FROM glob(getvariable('lake_generation') || '/topic=models/*/*.parquet')));

-- The basis of all queries.

-- Independent of the session's time zone, unlike a cast.
CREATE OR REPLACE TEMP MACRO utc(moment) AS make_timestamp(epoch_us(moment));
CREATE OR REPLACE TEMP MACRO in_period(moment) AS
  (getvariable('since') IS NULL OR moment >= getvariable('since')::TIMESTAMP)
  AND (getvariable('until') IS NULL OR moment < getvariable('until')::TIMESTAMP);
CREATE OR REPLACE TEMP MACRO of_model(name) AS
  getvariable('model') IS NULL OR name = getvariable('model')::VARCHAR;

CREATE OR REPLACE TEMP VIEW all_searches AS
SELECT * EXCLUDE (invalid, raw) REPLACE (utc(occurred_at) AS occurred_at, utc(logged_at) AS logged_at),
  len(results) AS result_count,
  list_transform(results, lambda r: r.image_name) AS result_names,
  results[1].image_name AS top_image,
  results[1].score AS top_score
FROM read_parquet(getvariable('searches_files'), hive_partitioning = false, union_by_name = true)
WHERE invalid IS NULL;

CREATE OR REPLACE TEMP VIEW searches AS
FROM all_searches WHERE in_period(occurred_at) AND of_model(model_name);

-- Of several ratings of a search (or of one picture in it) only the last one counts. All ratings of a
-- search are in one partition, as its id is their key.
CREATE OR REPLACE TEMP VIEW all_feedback AS
SELECT * EXCLUDE (invalid, raw)
  REPLACE (utc(occurred_at) AS occurred_at, utc(logged_at) AS logged_at, utc(searched_at) AS searched_at)
FROM read_parquet(getvariable('feedback_files'), hive_partitioning = false, union_by_name = true)
WHERE invalid IS NULL
QUALIFY row_number() OVER (PARTITION BY search_id, image_name ORDER BY "offset" DESC) = 1;

CREATE OR REPLACE TEMP VIEW feedback AS
FROM all_feedback WHERE in_period(occurred_at) AND of_model(model_name);

CREATE OR REPLACE TEMP VIEW images_indexed AS
SELECT * EXCLUDE (invalid, raw)
  REPLACE (utc(occurred_at) AS occurred_at, utc(logged_at) AS logged_at, utc(added_at) AS added_at)
FROM read_parquet(getvariable('indexed_files'), hive_partitioning = false, union_by_name = true)
WHERE invalid IS NULL AND in_period(utc(occurred_at)) AND of_model(model_name);

CREATE OR REPLACE TEMP VIEW dead_letters AS
SELECT * EXCLUDE (invalid, raw)
  REPLACE (utc(occurred_at) AS occurred_at, utc(logged_at) AS logged_at)
FROM read_parquet(getvariable('letters_files'), hive_partitioning = false, union_by_name = true)
WHERE invalid IS NULL AND in_period(utc(occurred_at))
  AND (model_name IS NULL OR of_model(model_name));

CREATE OR REPLACE TEMP VIEW models AS
SELECT * EXCLUDE (invalid, raw)
  REPLACE (utc(occurred_at) AS occurred_at, utc(logged_at) AS logged_at)
FROM read_parquet(getvariable('models_files'), hive_partitioning = false, union_by_name = true)
WHERE invalid IS NULL;

-- Statistics. The 97.5 % quantile of Student's t: a table up to 10 degrees of freedom (rounded down),
-- beyond them the Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5), exact to 0.0002.
CREATE OR REPLACE TEMP MACRO t975(df) AS CASE
  WHEN df < 1 OR df IS NULL THEN NULL
  WHEN df < 11 THEN [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281]
    [floor(df)::INTEGER]
  ELSE 1.959964 + 2.372271 / df + 2.822499 / df::DOUBLE ** 2 + 2.555851 / df::DOUBLE ** 3
END::DOUBLE;
-- Half the width of a mean's 95 % confidence interval; null below two values.
CREATE OR REPLACE TEMP MACRO half_width(deviation, n) AS t975(n - 1) * deviation / sqrt(n);

-- The queries.

CREATE OR REPLACE TEMP VIEW totals AS
SELECT
  (SELECT count(*) FROM searches) AS searches,
  (SELECT count(*) FROM searches WHERE result_count = 0) AS without_result,
  (SELECT quantile_cont(latency_ms.total, 0.95) FROM searches) AS latency_p95_ms,
  (SELECT count(*) FROM feedback) AS ratings,
  (SELECT avg(rating) FROM feedback) AS mean_rating,
  (SELECT count(*) FROM images_indexed) AS index_changes,
  (SELECT count(*) FROM dead_letters) AS dead_letters;

CREATE OR REPLACE TEMP VIEW searches_over_time AS
SELECT date_trunc(coalesce(getvariable('bucket')::VARCHAR, 'hour'), occurred_at) AS bucket,
  count(*) AS searches,
  count(*) FILTER (result_count = 0) AS without_result,
  avg(top_score) AS mean_top_score,
  quantile_cont(latency_ms.total, 0.95) AS latency_p95_ms
FROM searches GROUP BY ALL ORDER BY bucket;

CREATE OR REPLACE TEMP VIEW latency_by_stage AS
SELECT stage, count(*) AS searches,
  quantile_cont(ms, 0.5) AS p50_ms, quantile_cont(ms, 0.9) AS p90_ms,
  quantile_cont(ms, 0.95) AS p95_ms, quantile_cont(ms, 0.99) AS p99_ms, max(ms) AS max_ms
FROM (
  SELECT unnest(['embed', 'query', 'total']) AS stage,
    unnest([latency_ms.embed, latency_ms.query, latency_ms.total]) AS ms
  FROM searches
) GROUP BY stage ORDER BY stage;

-- Queries that found nothing, or whose best match has a score below `weak_score`.
CREATE OR REPLACE TEMP VIEW weak_queries AS
SELECT text, kind, count(*) AS searches,
  count(*) FILTER (result_count = 0) AS without_result,
  avg(top_score) AS mean_top_score,
  max(occurred_at) AS last_asked
FROM searches
WHERE result_count = 0 OR top_score < coalesce(getvariable('weak_score')::DOUBLE, 0.2)
GROUP BY text, kind ORDER BY searches DESC, text, kind;

-- One row per query that was rated; `at_least` and `at_most` bound its mean rating with 95 %
-- confidence (for a single rating: the whole scale).
CREATE OR REPLACE TEMP VIEW query_ratings AS
SELECT text, count(*) AS ratings, avg(rating) AS mean_rating,
  greatest(1.0, coalesce(avg(rating) - half_width(stddev_samp(rating), count(*)), 1.0)) AS at_least,
  least(10.0, coalesce(avg(rating) + half_width(stddev_samp(rating), count(*)), 10.0)) AS at_most
FROM feedback WHERE text IS NOT NULL GROUP BY text;

-- Ordered by the bound, not by the mean, so that a single rating does not decide.
CREATE OR REPLACE TEMP VIEW most_liked AS
FROM query_ratings ORDER BY at_least DESC, mean_rating DESC, text;
CREATE OR REPLACE TEMP VIEW least_liked AS
FROM query_ratings ORDER BY at_most, mean_rating, text;

CREATE OR REPLACE TEMP VIEW rating_counts AS
SELECT rating, count(*) AS ratings FROM feedback GROUP BY rating ORDER BY rating;

CREATE OR REPLACE TEMP VIEW ratings_by_model_week AS
SELECT f.model_name, s.model_version, date_trunc('week', f.occurred_at) AS week,
  count(*) AS ratings, avg(rating) AS mean_rating, stddev_samp(rating) AS deviation,
  avg(rating) - half_width(stddev_samp(rating), count(*)) AS at_least,
  avg(rating) + half_width(stddev_samp(rating), count(*)) AS at_most,
  list_transform(range(1, 11), lambda r: len(list_filter(list(rating), lambda x: x = r))) AS counts
FROM feedback f LEFT JOIN all_searches s USING (search_id)
GROUP BY ALL ORDER BY week, f.model_name, s.model_version;

-- Scores in steps of 0.05; `from_score` is the lower end.
CREATE OR REPLACE TEMP VIEW ratings_by_score AS
SELECT floor(top_score * 20) / 20 AS from_score, count(*) AS ratings, avg(rating) AS mean_rating,
  avg(rating) - half_width(stddev_samp(rating), count(*)) AS at_least,
  avg(rating) + half_width(stddev_samp(rating), count(*)) AS at_most
FROM feedback WHERE top_score IS NOT NULL GROUP BY ALL ORDER BY from_score;

CREATE OR REPLACE TEMP VIEW score_correlation AS
SELECT count(*) AS ratings, corr(rating, top_score) AS pearson
FROM feedback WHERE top_score IS NOT NULL;

-- The position of the rated picture in its answer; 1 is the best match.
CREATE OR REPLACE TEMP VIEW ratings_by_position AS
SELECT place, count(*) AS ratings, avg(rating) AS mean_rating,
  avg(rating) - half_width(stddev_samp(rating), count(*)) AS at_least,
  avg(rating) + half_width(stddev_samp(rating), count(*)) AS at_most
FROM (
  SELECT f.rating, list_position(s.result_names, f.image_name) AS place
  FROM feedback f JOIN all_searches s ON s.search_id = f.search_id
) WHERE place IS NOT NULL GROUP BY place ORDER BY place;

CREATE OR REPLACE TEMP VIEW rated_images AS
SELECT image_name, count(*) AS ratings, avg(rating) AS mean_rating
FROM feedback WHERE image_name IS NOT NULL GROUP BY image_name ORDER BY ratings DESC, image_name;

-- Number of searches by how many of their pictures were rated, and their ratings.
CREATE OR REPLACE TEMP VIEW ratings_by_rated_images AS
SELECT rated_images, count(*) AS searches, sum(given) AS ratings, sum(total) / sum(given) AS mean_rating
FROM (
  SELECT search_id, count(image_name) AS rated_images, count(*) AS given, sum(rating) AS total
  FROM feedback GROUP BY search_id
) GROUP BY rated_images ORDER BY rated_images;

-- From the watcher's publication to the first collection of the model that answers with it. A
-- replay into another collection, or after a crash, does not count.
CREATE OR REPLACE TEMP VIEW time_to_searchable AS
SELECT model_name, date_trunc('day', first_at) AS day, count(*) AS images,
  quantile_cont(seconds, 0.5) AS p50_s, quantile_cont(seconds, 0.95) AS p95_s, max(seconds) AS max_s
FROM (
  SELECT model_name, min(occurred_at) AS first_at,
    epoch_us(min(occurred_at) - any_value(added_at)) / 1e6 AS seconds
  FROM images_indexed
  WHERE action = 'upserted' AND added_at IS NOT NULL
  GROUP BY model_name, image_id, source_partition, source_offset
) GROUP BY ALL ORDER BY day, model_name;

CREATE OR REPLACE TEMP VIEW dead_letters_by_class AS
SELECT error_class, source_topic, count(*) AS letters, count(DISTINCT image_id) AS images,
  min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM dead_letters GROUP BY ALL ORDER BY letters DESC, error_class, source_topic;

-- Ratings of the searches made within `switch_days` before and after each change of the active
-- collection, and not beyond the neighbouring changes. The difference of the means has Welch's 95 %
-- confidence interval (Welch 1947): if it does not contain 0, the change is significant.
CREATE OR REPLACE TEMP VIEW model_switches AS
WITH changes AS (
  FROM models
  -- Filling or retiring a model does not change the active collection.
  WHERE coalesce(step, 'activated') IN ('activated', 'rolled_back')
  -- Activating the active collection again changes nothing, either.
  QUALIFY lag(collection) OVER (ORDER BY occurred_at, "offset") IS DISTINCT FROM collection
), switches AS (
  SELECT occurred_at AS switched_at, model_name, model_version, collection, before.collection AS from_collection,
    greatest(coalesce(before.switched_at, TIMESTAMP '1970-01-01'), switched_at - days) AS since,
    least(coalesce(after_at, TIMESTAMP '9999-01-01'), switched_at + days) AS until
  FROM (
    SELECT *, to_days(coalesce(getvariable('switch_days')::INTEGER, 14)) AS days,
      lag({'switched_at': occurred_at, 'collection': collection}) OVER in_time AS before,
      lead(occurred_at) OVER in_time AS after_at
    FROM changes WINDOW in_time AS (ORDER BY occurred_at, "offset")
  ) WHERE before IS NOT NULL
), rated AS (
  SELECT w.switched_at, f.searched_at >= w.switched_at AS is_after, f.rating
  FROM switches w JOIN all_feedback f ON f.searched_at >= w.since AND f.searched_at < w.until
), sides AS (
  SELECT switched_at,
    count(*) FILTER (NOT is_after) AS ratings_before, count(*) FILTER (is_after) AS ratings_after,
    avg(rating) FILTER (NOT is_after) AS mean_before, avg(rating) FILTER (is_after) AS mean_after,
    var_samp(rating) FILTER (NOT is_after) / count(*) FILTER (NOT is_after) AS error_before,
    var_samp(rating) FILTER (is_after) / count(*) FILTER (is_after) AS error_after
  FROM rated GROUP BY switched_at
), per_switch AS (
  SELECT w.switched_at,
    count(*) FILTER (occurred_at < w.switched_at) AS searches_before,
    count(*) FILTER (occurred_at >= w.switched_at) AS searches_after,
    quantile_cont(latency_ms.total, 0.95) FILTER (occurred_at < w.switched_at) AS latency_p95_before,
    quantile_cont(latency_ms.total, 0.95) FILTER (occurred_at >= w.switched_at) AS latency_p95_after
  FROM switches w JOIN all_searches s ON s.occurred_at >= w.since AND s.occurred_at < w.until
  GROUP BY w.switched_at
), compared AS (
  SELECT *, mean_after - mean_before AS difference, sqrt(error_before + error_after) AS error,
    (error_before + error_after) ** 2
      / nullif(error_before ** 2 / (ratings_before - 1) + error_after ** 2 / (ratings_after - 1), 0) AS df
  FROM sides
)
SELECT w.switched_at, w.model_name, w.model_version, w.from_collection, w.collection,
  coalesce(searches_before, 0) AS searches_before, coalesce(searches_after, 0) AS searches_after,
  latency_p95_before, latency_p95_after,
  coalesce(ratings_before, 0) AS ratings_before, coalesce(ratings_after, 0) AS ratings_after,
  mean_before, mean_after, difference,
  difference - t975(df) * error AS at_least, difference + t975(df) * error AS at_most
FROM switches w LEFT JOIN compared USING (switched_at) LEFT JOIN per_switch USING (switched_at)
ORDER BY w.switched_at;
