# Attacks by a tenant, and inputs that a tenant or AWS may send. `make test` runs the fuzz targets for a moment; `.ci/run` runs
# the short attacks after it.
.PHONY: attack
attack: cluster build ## Attacks by a tenant: all tests, then 20 minutes of random writes (ATTACK_SEED=<n>)
	@ATTACK=long ATTACK_SEED=$${ATTACK_SEED:-$$(date +%s)} ATTACK_WRITES=$${ATTACK_WRITES:-100000} ATTACK_SECONDS=$${ATTACK_SECONDS:-1200} \
		cargo test --workspace --locked --test attack

.PHONY: attack-short
attack-short: cluster build ## Attacks by a tenant, with few random writes (4 minutes)
	@ATTACK=short cargo test --workspace --locked --test attack

.PHONY: fuzz
fuzz: preflight ## Fuzz targets in a plain loop, 60 s each (FUZZ_SECONDS=<n>, FUZZ_SEED=<n>, FUZZ_ONLY=<name>)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-60} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} cargo test --workspace --locked --test fuzz

.PHONY: fuzz-short
fuzz-short: preflight ## The short fuzz run that `make test` runs
	@cargo test --workspace --locked --test fuzz
