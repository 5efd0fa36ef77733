    entries = Entries.of(
        model, methods, metrics, maps, target, controls, seed, batch_size, precision
    )
    data = Data.of(loader, indices, fraction, seed)
    work, team = Work.of(entries, data, seed, save_maps), launched()
    if dry_run:
        return _dry_run(work, team)
    results = _run(work, team, out, progress)
    for note in work.notes:
        warnings.warn(note, XcamWarning, stacklevel=2)
    return results


def _run(work: Work, team: Processes, out: str | Path | None, progress: bool) -> Results:
    if out is not None:
        work.finish(Store(Path(out)), team, progress)
        return Results(Path(out), work.entries.metrics)
    if team.count > 1:
        raise ValueError(f"{team.count} processes need a folder to share; give out='…'")
    with _temporary() as folder:
        work.finish(Store(folder), team, progress)
        return _holding(folder, work.entries)
