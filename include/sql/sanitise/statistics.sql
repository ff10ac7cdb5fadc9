-- The planner keeps samples of the values themselves.
COPY (
    SELECT most_common_vals::text, histogram_bounds::text, most_common_elems::text FROM pg_stats
) TO STDOUT;
