# SPDX-License-Identifier: Apache-2.0
"""The reinforcement-learning examples do what they say."""
import harness

BOUND_S = 900


class Examples(harness.Case):
    def setUp(self):
        super().setUp()
        self.fabric = self.path("fabric")

    def example(self, name):
        """Held-out pass_at_1 before the sweep, and of every trial."""
        file = "%s/examples/%s.yaml" % (harness.options.source, name)
        report = self.call("run", file, "--fabric", self.fabric, "--json",
                           bound_s=BOUND_S).json()
        self.assertEqual(report["state"], "done")
        before = report["metrics"]["sft_exam"]["pass_at_1"]
        return before, {trial["trial"]: trial["metrics"]["exam"]["pass_at_1"]
                        for trial in report["trials"]}

    def test_grpo_raises_the_held_out_reward(self):
        before, trials = self.example("grpo_arithmetic")
        self.assertEqual(len(trials), 4)
        for trial, after in trials.items():
            self.assertGreater(after, before + 0.1, trial)

    def test_ppo_learns_what_the_reward_model_prefers(self):
        before, trials = self.example("ppo_reward_model")
        self.assertEqual(len(trials), 4)
        self.assertGreater(max(trials.values()), before + 0.15, trials)

    def test_adapters_learn_over_one_base_in_shared_batches(self):
        before, trials = self.example("lora_sweep")
        self.assertEqual(len(trials), 8)
        self.assertGreater(max(trials.values()), before + 0.05, trials)
        rollout = "lora_sweep/tuned@%s/rollout.2"
        sizes = [self.call("lineage", rollout % trial, "--fabric",
                           self.fabric).json()[0]["execution"]["batch_items"]
                 for trial in trials]
        # sixteen prompts a trial: more than that are several trials'
        self.assertGreater(max(sizes), 16, sizes)


if __name__ == "__main__":
    harness.main()
